//! A process that uses known amounts of CPU and disk, for tests that know the truth.
//!
//! It obeys lines on its standard input: `burn <ms>` uses that much CPU, half of it in the kernel;
//! `write <bytes> <path>` writes and syncs; the end of the input ends it. After each line it prints what
//! the kernel says it used so far. With `--rewrite`, it overwrites its own argument area as
//! `setproctitle` does: every byte 0x01 in it becomes NUL, which no caller of execve(2) can pass.

use std::fs::File;
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::time::{ClockId, clock_gettime};

const CHUNK_BYTES: usize = 1 << 20;
/// Length of each turn of user and of system time: many turns per clock tick would let the kernel's
/// tick accounting mistake one for the other, so a turn spans several.
const TURN: Duration = Duration::from_millis(40);

/// Arguments of `fleet-sim workload`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Overwrite every byte 0x01 of the own argument area by NUL.
    #[arg(long)]
    rewrite: bool,
    /// Ignored: words that make the command line long and strange.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Obeys until the end of standard input.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.rewrite {
        rewrite_arguments()?;
    }
    println!("ready {} words", arguments.words.len());
    for line in std::io::stdin().lock().lines() {
        let line = line.context("read a command")?;
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["burn", milliseconds] => burn(Duration::from_millis(milliseconds.parse()?))?,
            ["write", bytes, path] => write(bytes.parse()?, Path::new(path))?,
            _ => bail!("unknown command {line:?}"),
        }
        let io = std::fs::read_to_string("/proc/self/io").context("read /proc/self/io")?;
        println!("done {line}; {}", io.replace('\n', " "));
    }
    Ok(())
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn burn(amount: Duration) -> Result<()> {
    let end = cpu_time() + amount;
    let mut zeros = File::open("/dev/zero").context("open /dev/zero")?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut number: u64 = 1;
    while cpu_time() < end {
        let turn = (cpu_time() + TURN).min(end);
        while cpu_time() < turn {
            for _ in 0..100_000 {
                number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005) + 1);
            }
        }
        let turn = (cpu_time() + TURN).min(end);
        while cpu_time() < turn {
            zeros.read_exact(&mut buffer).context("read /dev/zero")?;
        }
    }
    Ok(())
}

fn write(bytes: usize, path: &Path) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let chunk = vec![0x5a; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(CHUNK_BYTES);
        file.write_all(&chunk[..length]).context("write")?;
        left -= length;
    }
    file.sync_all().context("fsync")
}

/// Fields 48 and 49 of `/proc/self/stat` (proc(5)) bound the argument area; `/proc/self/mem` writes it
/// without unsafe code.
fn rewrite_arguments() -> Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("comm in /proc/self/stat")?;
    let field = |number: usize| -> Result<u64> {
        let text = fields.split_whitespace().nth(number - 3).context("a short /proc/self/stat")?;
        Ok(text.parse()?)
    };
    let (start, end) = (field(48)?, field(49)?);
    let memory = File::options().read(true).write(true).open("/proc/self/mem")?;
    let mut area = vec![0; usize::try_from(end - start)?];
    memory.read_exact_at(&mut area, start).context("read the argument area")?;
    for byte in area.iter_mut().filter(|byte| **byte == 1) {
        *byte = 0;
    }
    memory.write_all_at(&area, start).context("write the argument area")
}
