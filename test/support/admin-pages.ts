/** The JSON pages of the admin listener, as a client of them may rely on them. */

/** What /v1/cluster shows. */
export interface ClusterView {
  readonly replicas: readonly {
    readonly name: string;
    readonly model: string;
    readonly url: string;
    readonly healthy: boolean;
    readonly state: string;
    readonly breaker: string;
    readonly ejections: number;
    readonly in_flight: number;
    readonly requests: number;
    readonly errors: number;
    readonly weight: number;
    readonly max_in_flight: number;
    readonly adapters: readonly string[];
    readonly reason: string;
    readonly engine: {
      readonly running: number;
      readonly waiting: number;
      readonly kv_usage_ratio: number;
      readonly kv_capacity_tokens: number;
    } | null;
  }[];
  readonly models: readonly { name: string; policy: string; queue_depth: number }[];
  readonly policy: string;
  readonly queue_depth: number;
  readonly dispatched: number;
  readonly dropped: number;
  readonly overload: Readonly<
    Record<'memory' | 'descriptors', { stage: string; share: number; limit: number | null }>
  >;
  readonly version: string;
  readonly engine: string;
  readonly pid: number;
  readonly restart_problem: string;
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

/** What /admin/explain/{id} shows. */
export interface ExplainView {
  readonly request_id: string;
  /** Newest first. */
  readonly attempts: readonly {
    readonly model: string | null;
    readonly policy: string | null;
    readonly formula: string;
    readonly chosen_by: 'policy' | 'session';
    readonly attempt: number;
    readonly replica: string | null;
    readonly queue_ms: number;
    readonly prompt_tokens: number;
    readonly expected_output_tokens: number;
    readonly replicas_of_model: number;
    readonly candidates_total: number;
    readonly candidates: readonly {
      readonly replica: string | null;
      readonly in_flight: number;
      readonly pending_tokens: number;
      readonly context_tokens: number;
      readonly matched_tokens: number;
      readonly score: number | null;
      readonly terms: Readonly<Record<string, number>>;
    }[];
    readonly filtered: Readonly<Record<string, number>>;
  }[];
}
