/** An empty view, for whoever writes nothing. */
export const noBytes = new Uint8Array(0);
