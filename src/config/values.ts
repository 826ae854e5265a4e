/** Values that several keys of the config have in common. Pure. */
import { z } from 'zod';

export const integer = (min: number, max: number) => z.int().min(min).max(max);
export const share = () => z.number().min(0).max(1);

export const port = () => integer(0, 65_535);
export const host = () =>
  z
    .string()
    .regex(/^[A-Za-z0-9.:[\]_-]{1,253}$/, { error: 'must be a host name or an IP address' });

/** Goes into an HTTP header as it is: anything but visible ASCII could split the header. */
export const secret = () =>
  z
    .string()
    .regex(/^[\x21-\x7e]{0,4096}$/, { error: 'must be visible ASCII without spaces' })
    .meta({ writeOnly: true });

export const file = () => z.string().min(1).max(4096);

export const path = () =>
  z.string().regex(/^\/[\x21-\x7e]{0,1023}$/, { error: 'must be a path that starts with /' });
