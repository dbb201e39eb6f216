-- The lease behind which one replica at a time maintains the database. `epoch` grows with every
-- change of hands; every maintenance transaction checks that it still holds its epoch (fencing).

create table maintenance_lease (
    singleton  boolean primary key default true check (singleton),
    holder     uuid,
    epoch      bigint      not null default 0,
    expires_at timestamptz not null default '-infinity',
    retention_clock timestamptz             -- what retention takes for now: never jumps; null: no pass yet
);
insert into maintenance_lease default values;
