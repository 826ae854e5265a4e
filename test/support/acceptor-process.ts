/**
 * A process with one acceptor whose requests are answered at once, for tests that limit or measure a
 * process. Arguments: engine, connection cap. Prints its port; ends when stdin does.
 */
import { AcceptorHarness, type Engine } from './acceptor-harness.ts';

const [engine, maxConnections] = process.argv.slice(2);
const harness = await AcceptorHarness.start({
  engine: engine as Engine,
  maxConnections: Number(maxConnections),
});
harness.onArrival = (arrival) => harness.whole(arrival, 'ok');
console.log(harness.port);
process.stdin.resume();
process.stdin.on('end', () => {
  void harness.stop().then((code) => process.exit(code));
});
