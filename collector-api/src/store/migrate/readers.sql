-- What procfleet_reader may see: the views and functions named here, and nothing else. Done again after
-- every migration, under its lock, so that a view made anew, a function added since, or a role that
-- an administrator made later are taken in.
--
-- The functions run with the rights of their owner; none of them puts a text it was given into a
-- statement unquoted. The others cannot be called by the role at all.
do $$
declare
    views constant text[] := array[
        'procfleet_hosts', 'procfleet_alerts', 'procfleet_maintenance', 'procfleet_storage', 'procfleet_rejects'
    ];
    functions constant text[] := array[
        'procfleet_hosts_with', 'procfleet_top', 'procfleet_compare', 'procfleet_host_totals',
        'procfleet_host_series', 'procfleet_process_series', 'procfleet_coverage',
        'procfleet_troubled_collectors', 'procfleet_connections', 'procfleet_exits', 'procfleet_host_addresses',
        'procfleet_step', 'procfleet_part_lines', 'procfleet_process_lines', 'procfleet_host_lines',
        'procfleet_process_runs', 'procfleet_ingest_series', 'procfleet_progress'
    ];
    home constant text := current_schema();
    object record;
begin
    for object in
        select p.oid::regprocedure::text as signature, p.proname = any (functions) as shown
        from pg_proc p where p.pronamespace = home::regnamespace and p.proname like 'procfleet\_%'
    loop
        execute format('revoke all on routine %s from public', object.signature);
        if object.shown then
            execute format('alter function %s security definer set search_path = %I, pg_temp', object.signature, home);
        end if;
    end loop;

    -- Roles belong to the whole cluster: another database may have made it, or be making it.
    if not exists (select from pg_roles where rolname = 'procfleet_reader') then
        begin
            create role procfleet_reader nologin;
        exception
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                raise warning 'role procfleet_reader not made: % may not create roles; let an administrator run "create role procfleet_reader nologin", then migrate again', current_user;
                return;
        end;
    end if;

    execute format('grant usage on schema %I to procfleet_reader', home);
    for object in
        select c.oid::regclass::text as name, c.relname = any (views) as shown
        from pg_class c where c.relnamespace = home::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
          and (c.relname = any (views) or has_any_column_privilege('procfleet_reader', c.oid, 'select')
               or exists (select from aclexplode(c.relacl) a where a.grantee = 'procfleet_reader'::regrole))
          and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
    loop
        execute format('revoke all on %s from procfleet_reader', object.name);
        if object.shown then
            execute format('grant select on %s to procfleet_reader', object.name);
        end if;
    end loop;
    for object in
        select p.oid::regprocedure::text as signature
        from pg_proc p where p.pronamespace = home::regnamespace and p.proname = any (functions)
    loop
        execute format('grant execute on function %s to procfleet_reader', object.signature);
    end loop;

    -- Of this database: a setting of the role itself would be written by every database at once.
    begin
        execute format('alter role procfleet_reader in database %I set statement_timeout = ''30s''', current_database());
        execute format('alter role procfleet_reader in database %I set default_transaction_read_only = on', current_database());
        execute format('alter role procfleet_reader in database %I set idle_in_transaction_session_timeout = ''1min''', current_database());
    exception when insufficient_privilege then
        raise warning 'procfleet_reader has no statement_timeout: % may not alter the role', current_user;
    end;
end
$$;
