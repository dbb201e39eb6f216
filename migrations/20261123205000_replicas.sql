-- Servers that run on this database: each says so itself, and is forgotten a day after it stopped saying so.
create table server_replicas (
    replica_id     uuid primary key,                -- of one run of a server
    host_name      text not null,
    version        text not null,
    operator_door  text not null,                   -- where it listens
    started_at     timestamptz not null default now(),
    seen_at        timestamptz not null default now(),
    stopped_at     timestamptz                      -- it ended, and said so
);

-- Hosts that report through another endpoint because this one did not answer them. Rows older than three minutes say nothing.
create table endpoint_witnesses (
    endpoint text not null,
    host_id  uuid not null references hosts on delete cascade,
    seen_at  timestamptz not null default now(),
    primary key (endpoint, host_id)
);
create index endpoint_witnesses_host_id on endpoint_witnesses (host_id);
