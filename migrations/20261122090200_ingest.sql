-- Exactly-once bookkeeping. Moved in the transaction that stores the samples.

create table ingest_cursors (
    host_id       uuid   not null,
    stream_id     uuid   not null,
    last_sequence bigint not null,
    last_digest   bigint not null,                  -- of the record at last_sequence: tells a repeat from a fork
    updated_at    timestamptz not null default now(),
    primary key (host_id, stream_id)
) with (fillfactor = 50);

-- Records passed over for good: poison (with what it looked like) and gaps (what never came).
create table ingest_rejects (
    host_id        uuid        not null,
    stream_id      uuid        not null,
    first_sequence bigint      not null,
    sequence       bigint      not null,
    code           text        not null,            -- a problem code, or gap_<reason>
    detail         text        not null,
    received_at    timestamptz not null default now(),
    body_sha256    bytea,
    body           bytea,                           -- the record's first 64 KiB; null: a gap, or dropped for newer ones
    primary key (host_id, stream_id, sequence)
);
create index ingest_rejects_received_at on ingest_rejects (received_at);
create index ingest_rejects_bodies on ingest_rejects (host_id, received_at) where body is not null;
