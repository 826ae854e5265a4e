/** The key table of a gateway that asks nobody for a key. */
import type { KeyTable } from '../../src/config/tenants.ts';

export const noKeys: KeyTable = { isRequired: false, tenants: [], keys: [] };
