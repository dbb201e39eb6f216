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
