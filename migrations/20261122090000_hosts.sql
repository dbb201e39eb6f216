-- Hosts, their certificates, and the one row per host that says when it was last heard of.

create table hosts (
    host_id             uuid primary key,           -- minted by the server (UUIDv7), in the certificate's SAN
    host_number         integer not null unique generated always as identity, -- its short name in process_samples
    host_name           text not null,
    machine_id_hash     text,                       -- an attribute: cloned machines share it
    product_uuid_hash   text,                       -- of the firmware's id: containers share it
    os_description      text,
    kernel_release      text not null,
    host_arch           text not null,
    agent_version       text not null,
    lifecycle           text not null default 'active' check (lifecycle in ('active', 'decommissioned')),
    enrollment_token_id uuid not null,
    enrolled_at         timestamptz not null default now(),
    facts_updated_at    timestamptz not null default now(),
    labels              jsonb not null default '{}' check (jsonb_typeof(labels) = 'object'), -- name to value
    ephemeral           boolean not null default false, -- may vanish without a word, and is then decommissioned
    duplicate_machine_at timestamptz,               -- when another host enrolled as the same machine while this one lived
    enrollment_refused_at timestamptz               -- when its machine last wanted to enrol too often
);
create index hosts_host_name on hosts (host_name);
create index hosts_machine_id_hash on hosts (machine_id_hash);
create index hosts_product_uuid_hash on hosts (product_uuid_hash);
create index hosts_enrollment_refused_at on hosts (enrollment_refused_at) where enrollment_refused_at is not null;
create index hosts_labels on hosts using gin (labels jsonb_path_ops);

create table host_certificates (
    serial      text primary key,                   -- hex
    host_id     uuid not null references hosts,
    spki_sha256 bytea not null unique check (octet_length(spki_sha256) = 32),
    status      text not null default 'active' check (status in ('active', 'superseded', 'revoked')),
    chain_pem   text not null,                      -- what the answer to the same CSR repeats
    not_before  timestamptz not null,
    not_after   timestamptz not null,
    issued_at   timestamptz not null default now()
);
create index host_certificates_host_id on host_certificates (host_id);

-- When a host that was heard of at a moment counts as silent: three intervals, and 15 s for the way.
create function procfleet_deadline(heard_at timestamptz, interval_ms integer) returns timestamptz
language sql stable parallel safe as $$
    select heard_at + coalesce(interval_ms, 30000) * interval '3 ms' + interval '15 s'
$$;

-- No index on what every report updates: the update stays heap-only (HOT).
create table heartbeats (
    host_id         uuid primary key references hosts,
    last_seen_at    timestamptz,                    -- database clock, at commit of the newest accepted report
    last_sampled_at timestamptz,                    -- when the agent took it
    clock_offset_ms bigint,                         -- what the agent adds to the host's clock; null: it believes it
    contacted_at    timestamptz,                    -- database clock: the last time it proved its identity, whatever it heard
    deadline_at     timestamptz,                    -- when the host counts as silent
    interval_ms     integer,
    boot_id         uuid,
    place           uuid,                           -- the machine, boot and state directory that holds the identity
    place_heard_at  timestamptz,                    -- when it last stored something; null: it said that it leaves
    goodbye         text check (goodbye in ('shutdown', 'restart', 'upgrade', 'uninstall')), -- null: nothing said since it came back
    goodbye_at      timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- Another machine shows a host's identity while its holder lives. What is known of it; the row of `heartbeats` is the lock.
create table clone_conflicts (
    host_id     uuid primary key references hosts on delete cascade,
    rival_place uuid not null,                      -- the one refused last
    knocked_at  timestamptz not null default now(), -- when it was
    answers     smallint not null default 0,        -- what the holder stored since the rival came; two prove that it lives
    detected_at timestamptz,                        -- when that was proven
    seen_at     timestamptz                         -- when both last spoke
);

-- Enrolments of the last hour by machine: one that enrols again and again is slowed down.
create table machine_enrollments (
    machine     text        not null,               -- hashes of machine-id and of the firmware's id
    enrolled_at timestamptz not null default now()
);
create index machine_enrollments_machine on machine_enrollments (machine, enrolled_at);
create index machine_enrollments_enrolled_at on machine_enrollments (enrolled_at);
