/**
 * What stands in front of the replicas in a comparison: nothing, HAProxy, nginx, a minimal proxy in
 * one Node thread, or the gateway. Each proxy gets one thread, keep-alive pools to the replicas and
 * least-connections (the minimal one: round robin); none writes a log line per request.
 */
import { accessSync, constants, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { PolicyName } from '../../src/config/schema.ts';
import type { BenchContext } from './bench-context.ts';
import { type Child, freePorts } from './children.ts';
import { mainFile } from './program.ts';
import { model, type ReplicaFleet } from './replicas.ts';

export const targetNames = ['direct', 'haproxy', 'nginx', 'uws', 'gateway'] as const;
export type TargetName = (typeof targetNames)[number];

export interface Target {
  readonly name: TargetName;
  /** Where the load goes: one port, or every replica for `direct`. */
  readonly ports: readonly number[];
  /** Processes whose CPU time is the target's; empty for `direct`. */
  readonly children: readonly Child[];
  /** Base URL of the admin listener; the gateway only. */
  readonly adminUrl: string | undefined;
}

/** The targets of this run that exist here, started; the others by name with the reason. */
export async function startTargets(
  bench: BenchContext,
  fleet: ReplicaFleet,
  wanted: readonly TargetName[],
): Promise<{ targets: Target[]; skipped: string[] }> {
  const targets: Target[] = [];
  const skipped: string[] = [];
  for (const name of wanted) {
    if (!bench.wants(name)) skipped.push(`${name}: not among --targets`);
    else if ((name === 'haproxy' || name === 'nginx') && !installed(name)) {
      skipped.push(`${name}: not installed`);
    } else targets.push(await startTarget(bench, fleet, name));
  }
  return { targets, skipped };
}

/** What a gateway's config has beyond that of a comparison. */
export interface GatewayChanges {
  readonly sections?: Readonly<Record<string, unknown>>;
  readonly model?: Readonly<Record<string, unknown>>;
}

/** A gateway that is the only target, under a policy. */
export function startGateway(
  bench: BenchContext,
  fleet: ReplicaFleet,
  policy: PolicyName,
  changes: GatewayChanges = {},
): Promise<Target> {
  return startTarget(bench, fleet, 'gateway', policy, changes);
}

async function startTarget(
  bench: BenchContext,
  fleet: ReplicaFleet,
  name: TargetName,
  policy?: PolicyName,
  changes: GatewayChanges = {},
): Promise<Target> {
  const [port, adminPort] = (await freePorts(2)) as [number, number];
  const listen = { port, adminPort, policy, changes };
  if (name === 'direct') {
    return target(name, fleet.ports, []);
  }
  const { command, args, env } = commandOf[name](bench, fleet, listen);
  // The gateway says itself when it can serve; a proxy is ready when a request gets through it.
  const readyUrl =
    name === 'gateway'
      ? `http://127.0.0.1:${adminPort}/readyz`
      : `http://127.0.0.1:${port}/v1/models`;
  const child = await bench.children.start(name, command, args, { readyUrl, env });
  return target(name, [port], [child], name === 'gateway' ? adminPort : undefined);
}

function target(
  name: TargetName,
  ports: readonly number[],
  children: readonly Child[],
  adminPort?: number,
): Target {
  return {
    name,
    ports,
    children,
    adminUrl: adminPort === undefined ? undefined : `http://127.0.0.1:${adminPort}`,
  };
}

interface Ports {
  readonly port: number;
  readonly adminPort: number;
  readonly policy: PolicyName | undefined;
  readonly changes: GatewayChanges;
}

interface Launch {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

type Launcher = (bench: BenchContext, fleet: ReplicaFleet, listen: Ports) => Launch;

const commandOf: Record<Exclude<TargetName, 'direct'>, Launcher> = {
  haproxy(bench, fleet, { port }) {
    const file = write(bench, `haproxy-${port}.cfg`, haproxyConfig(fleet, port));
    return { command: 'haproxy', args: ['-db', '-q', '-f', file], env: {} };
  },
  nginx(bench, fleet, { port }) {
    const file = write(bench, `nginx-${port}.conf`, nginxConfig(bench, fleet, port));
    const args = ['-e', 'stderr', '-p', bench.folder, '-c', file];
    return { command: 'nginx', args, env: {} };
  },
  uws(_bench, fleet, { port }) {
    const file = fileURLToPath(new URL('baseline-uws.ts', import.meta.url));
    return { command: process.execPath, args: [file, String(port), ...urls(fleet)], env: {} };
  },
  gateway(bench, fleet, { port, adminPort, policy, changes }) {
    // JSON is YAML.
    const config = JSON.stringify(gatewayConfig(fleet, port, adminPort, policy, changes), null, 2);
    const file = write(bench, `sluice-${port}.yaml`, config);
    const args = [mainFile, 'serve', '--config', file, '--no-supervisor'];
    return { command: process.execPath, args, env: {} };
  },
};

function installed(command: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function write(bench: BenchContext, name: string, text: string): string {
  const file = join(bench.folder, name);
  writeFileSync(file, text);
  return file;
}

function urls(fleet: ReplicaFleet): string[] {
  return fleet.ports.map((port) => `http://127.0.0.1:${port}`);
}

/** Defaults but for limits that the load of a scenario would reach. */
export function gatewayConfig(
  fleet: ReplicaFleet,
  port: number,
  adminPort: number,
  policy: PolicyName = 'least_in_flight',
  { sections, model: ofModel }: GatewayChanges = {},
): object {
  return {
    listen: { host: '127.0.0.1', port, max_connections: 4096 },
    admin: { host: '127.0.0.1', port: adminPort },
    log: { level: 'warn' },
    ...sections,
    models: [
      {
        name: model,
        policy,
        ...ofModel,
        replicas: urls(fleet).map((url, index) => ({
          url,
          name: `r${index + 1}`,
          max_in_flight: 1024,
        })),
      },
    ],
  };
}

function haproxyConfig(fleet: ReplicaFleet, port: number): string {
  // A replica closes a connection that is idle for 5 s; both proxies must let go of it before.
  const servers = fleet.ports.map(
    (p, i) => `  server r${i + 1} 127.0.0.1:${p} pool-purge-delay 2s`,
  );
  return `global
  nbthread 1
  maxconn 8192
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 120s
  timeout server 120s
frontend listener
  bind 127.0.0.1:${port}
  default_backend replicas
backend replicas
  balance leastconn
${servers.join('\n')}
`;
}

function nginxConfig(bench: BenchContext, fleet: ReplicaFleet, port: number): string {
  const servers = fleet.ports.map((p) => `    server 127.0.0.1:${p} max_fails=0;`);
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `  ${kind}_temp_path ${join(bench.folder, kind)};`,
  );
  return `daemon off;
master_process off;
worker_processes 1;
pid ${join(bench.folder, `nginx-${port}.pid`)};
error_log stderr crit;
worker_rlimit_nofile 16384;
events { worker_connections 8192; }
http {
  access_log off;
${paths.join('\n')}
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  keepalive_requests 1000000000;
  upstream replicas {
    least_conn;
${servers.join('\n')}
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 4s;
  }
  server {
    listen 127.0.0.1:${port} backlog=1024;
    location / {
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 120s;
    }
  }
}
`;
}
