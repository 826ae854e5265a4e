/** The JSON pages of the admin listener, as a client of them may rely on them. */

/** What /v1/cluster shows. */
export interface ClusterView {
  readonly replicas: readonly {
    readonly name: string;
    readonly model: string;
    readonly url: string;
    readonly healthy: boolean;
    readonly state: string;
    readonly in_flight: number;
    readonly requests: number;
    readonly errors: number;
    readonly weight: number;
    readonly max_in_flight: number;
    readonly reason: string;
  }[];
  readonly models: readonly { name: string; policy: string; queue_depth: number }[];
  readonly policy: string;
  readonly queue_depth: number;
  readonly dispatched: number;
  readonly dropped: number;
  readonly version: string;
  readonly engine: string;
}

/** What /admin/slots shows. */
export interface SlotsView {
  readonly count: number;
  readonly states: Readonly<Record<string, number>>;
  readonly rings: Readonly<Record<string, number>>;
  readonly rows: readonly {
    readonly slot: number;
    readonly state: string;
    readonly generation: number;
    readonly attempt: number;
    readonly acceptor: number;
    readonly replica: number;
    readonly forwarder: number;
    readonly client_gone: boolean;
    readonly age_ms: number;
    readonly body_bytes: number;
    readonly unsent_bytes: number;
  }[];
  readonly threads: readonly {
    readonly name: string;
    readonly phase: number;
    readonly heartbeatAgeSeconds: number;
    readonly lagMs: number;
    readonly utilization: number;
    readonly connections: number;
    readonly arenaBytes: number;
  }[];
  readonly descriptors: number;
  readonly rss_bytes: number;
}
