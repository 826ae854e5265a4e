/** Of a stream that nobody will go on behind: nothing is kept. Forwarder threads. */
import { Buffer } from 'node:buffer';
import type { Delivered } from './delivered.ts';

const nothing = Buffer.alloc(0);

export const deliveredNothing: Delivered = {
  begin() {},
  note() {},
  confirm() {},
  withdraw() {},
  isWaiting: false,
  came: -1,
  promptTokens: -1,
  canContinue: false,
  isEmpty: true,
  bytes: nothing,
};
