/** Fixed capacities that the config is measured against; any thread may import them. */
export const modelsMax = 64;
export const splitsMax = 64;
/** Of one model, in either list. */
export const fallbacksMax = 4;
/** Of one model. */
export const adaptersMax = 256;
/** Over all models together. */
export const replicasMax = 256;
/** Over all tenants 64 keys each: what a table that is sent to every acceptor may have. */
export const tenantsMax = 10_000;
/** Tenants that metrics may tell apart: each has a series for every model and kind of token it uses. */
export const tenantSeriesMax = 256;
/** Tenants, and models with limits of their own, over all tenants. */
export const limitRowsMax = 16_384;
/** Priorities reach from -100 to 100. */
export const priorityMax = 100;
/** Of one tenant. */
export const keysMax = 64;
/** Request line and headers; both engines refuse more. */
const headBytesMax = 16 * 1024;
/**
 * The headers of a request as they lie before its body in the arena. A length of two bytes comes with
 * each name and each value; both take two bytes on the wire at least (a letter and a colon; a line
 * end), so the head grows to no more than twice its size.
 */
export const headBlobBytesMax = 2 * headBytesMax;
