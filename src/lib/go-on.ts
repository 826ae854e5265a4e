/**
 * What the scheduler says of a request to whoever has the answer of a model in hand. larger: the reply may be
 * discarded, there is a larger model. longer: that the prompt is too long is not the last word.
 */
export const GoOn = { larger: 1, longer: 2 } as const;
