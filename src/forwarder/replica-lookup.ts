/**
 * Resolves the name of a replica for a connection, and refuses addresses no replica may have: a name
 * that passed the config may resolve to the metadata service later. Forwarder threads and the health
 * checker; asynchronous.
 */
import { lookup } from 'node:dns';
import type { LookupFunction } from 'node:net';
import { isForbiddenAddress } from '../config/address.ts';

export const forbiddenAddressCode = 'ERR_FORBIDDEN_ADDRESS';

export const replicaLookup: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) {
      callback(error, []);
      return;
    }
    const refused = addresses.find(({ address }) => isForbiddenAddress(address));
    if (refused !== undefined) {
      const message = `${hostname} resolves to ${refused.address}, which no replica may have`;
      callback(Object.assign(new Error(message), { code: forbiddenAddressCode }), []);
      return;
    }
    const [first] = addresses;
    if (options.all === true) callback(null, addresses);
    else if (first !== undefined) callback(null, first.address, first.family);
    else
      callback(Object.assign(new Error(`${hostname} has no address`), { code: 'ENOTFOUND' }), '');
  });
};
