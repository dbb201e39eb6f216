-- Configuration from the centre: what operators set, and what became of it on the hosts.

-- What hosts are to use that the selector means. A later change of a row has a greater version.
create table profiles (
    profile_id    uuid primary key,
    name          text not null unique,
    selector      text,                             -- as the operator wrote it; null: every host
    priority      integer not null,                 -- the greater prevails
    configuration jsonb not null,
    version       integer not null default 1,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now()
);

-- What one host alone is to use: prevails over every profile. A row stays when nothing is set any more, so that
-- no version comes twice.
create table host_overrides (
    host_id       uuid primary key references hosts on delete cascade,
    configuration jsonb,                            -- null: nothing any more
    version       integer not null default 1,
    updated_at    timestamptz not null default now()
);

-- What the agent says: hashes, each null as long as there is none.
create table host_configurations (
    host_id     uuid primary key references hosts on delete cascade,
    received    text,
    applied     text,
    failed      text,
    error       text,
    limited     text[] not null default '{}',
    reported_at timestamptz not null default now()
) with (fillfactor = 70);

-- Grows with every change that may change what is in force for any host: replicas look at it, and forget
-- what they compiled before. A row, not a sequence: a greater number is seen with the change, not before it.
create table configuration_revision (
    only_row boolean primary key default true check (only_row),
    revision bigint not null default 1
);
insert into configuration_revision default values;

create function procfleet_revise_configuration() returns trigger language plpgsql as $$
begin
    update configuration_revision set revision = revision + 1;
    return null;
end
$$;
create trigger revise_configuration after insert or update or delete on profiles
    for each statement execute function procfleet_revise_configuration();
create trigger revise_configuration after insert or update or delete on host_overrides
    for each statement execute function procfleet_revise_configuration();
create trigger revise_configuration after update of labels on hosts
    for each statement execute function procfleet_revise_configuration();
