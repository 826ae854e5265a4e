/** Before tests that start gateways and replicas as processes: the program they start, as it ships. */
export { buildProgram as setup } from '../../scripts/bench/program.ts';
