//! Where the program says what it does.

use tracing_subscriber::EnvFilter;

/// Text for people, JSON for a journal. `RUST_LOG` goes before `level`.
pub fn log<W>(writer: W, for_people: bool, level: &str)
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    if for_people {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
