/** Option parsers that several commands share. */
import { Help, InvalidArgumentError, type Option } from 'commander';

export function portNumber(value: string): number {
  if (!/^\d{1,5}$/.test(value) || Number(value) > 65_535) {
    throw new InvalidArgumentError('must be a port number');
  }
  return Number(value);
}

/** Help text without the defaults that say nothing: a switch that is off, a list that is empty. */
export const helpStyle = {
  optionDescription(this: Help, option: Option): string {
    const { defaultValue } = option;
    const isPlain = defaultValue === false || (Array.isArray(defaultValue) && !defaultValue.length);
    return isPlain ? option.description : Help.prototype.optionDescription.call(this, option);
  },
};

export function wholeNumber(min: number, max: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (/^\d+$/.test(value) && number >= min && number <= max) return number;
    throw new InvalidArgumentError(`must be a whole number from ${min} to ${max}`);
  };
}
