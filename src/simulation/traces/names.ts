/** Names of the traces that come with the repository. */

export const traceNames = [
  'conversation',
  'azure-code',
  'azure-chat',
  'sharegpt',
  'servegen',
] as const;
export type TraceName = (typeof traceNames)[number];
