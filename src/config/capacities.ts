/** Fixed capacities that the config is measured against; any thread may import them. */
export const modelsMax = 64;
/** Over all models together. */
export const replicasMax = 256;
/** Request line and headers; both engines refuse more. */
const headBytesMax = 16 * 1024;
/**
 * What lies before a body in the arena: the headers for the replica. Each text of them costs two bytes
 * more than on the wire and was there at least one byte long, or one colon.
 */
export const headBlobBytesMax = 2 * headBytesMax;
