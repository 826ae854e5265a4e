/** Fixed capacities of the tables that hold models and replicas; any thread may import them. */
export const modelsMax = 64;
/** Over all models together. */
export const replicasMax = 256;
