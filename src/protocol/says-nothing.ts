/** Values of JSON that ask an engine for no more than their absence does. Pure; any thread. */
const nothing = /^(?:null|false|""|\[\s*\]|\{\s*\})$/;

export const saysNothing = (value: string): boolean => nothing.test(value);
