/** What happens to the fleet during a run, by time. Types and one order. Pure. */

export interface FleetEvent {
  readonly atUs: number;
  readonly row: number;
  /**
   * slow: its steps take `factor` times as long; 1 ends it. kill: it loses everything and takes
   * nothing. add: it begins, cold; also the return of a killed one.
   */
  readonly kind: 'slow' | 'kill' | 'add';
  readonly factor?: number;
}

export function inOrder(events: readonly FleetEvent[]): FleetEvent[] {
  return events.toSorted((a, b) => a.atUs - b.atUs || a.row - b.row);
}
