//! The program `briefly`: runs fuzz targets for a short time on a stable compiler (cargo-fuzz needs a nightly one). It
//! mutates seeds, and the same `--seed` gives the same inputs.
//!
//! ```text
//! briefly [--seconds N | --runs N] [--seed N] [--jobs N] [--stack KIB] [TARGET...]
//! briefly --input FILE TARGET
//! ```
//!
//! Without names all targets run, `--jobs` at once, each for N seconds or inputs. The inputs are mutations of a
//! target's own seeds, and of the files in `fuzz/seeds/TARGET` (inputs that once failed, or that reach deep) and in
//! `fuzz/corpus/TARGET`. An input that violates a guarantee, or takes longer than two seconds in each of three runs, is
//! written to `fuzz/artifacts/TARGET`; the exit status is then 1.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use runzeo_fuzz::mutate::{Random, mutate};
use runzeo_fuzz::{TARGETS, Target};

/// In KiB. As small as the stacks of the server's threads, so that recursion is detected.
const STACK: usize = 128;
const SLOW: Duration = Duration::from_secs(2);

/// When a target's run ends.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Runs(u64),
}

fn main() -> ExitCode {
    match options() {
        Ok(good) => {
            if good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Executes the command line. `false` if a guarantee was violated.
fn options() -> Result<bool, String> {
    let (mut until, mut seed, mut jobs, mut input) = (Until::Time(Duration::from_secs(5)), 1, 1, None);
    let mut stack = STACK;
    let mut targets = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = |what: &str| args.next().ok_or_else(|| format!("{what} wants a value"));
        match arg.as_str() {
            "--seconds" => {
                let seconds = number("--seconds")?.parse().map_err(|_| "--seconds wants a number")?;
                until = Until::Time(Duration::from_secs_f64(seconds));
            }
            "--runs" => {
                until = Until::Runs(number("--runs")?.parse().map_err(|_| "--runs wants a number")?);
            }
            "--jobs" => jobs = number("--jobs")?.parse().map_err(|_| "--jobs wants a number")?,
            "--seed" => seed = number("--seed")?.parse().map_err(|_| "--seed wants a number")?,
            "--stack" => stack = number("--stack")?.parse().map_err(|_| "--stack wants a number")?,
            "--input" => input = Some(number("--input")?),
            name => match TARGETS.iter().find(|target| target.name == name) {
                Some(target) => targets.push(target),
                None => {
                    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
                    return Err(format!("no target {name}; there are {}", names.join(", ")));
                }
            },
        }
    }
    if let Some(file) = input {
        let [target] = targets.as_slice() else { return Err("--input wants one target".to_string()) };
        let input = std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
        return Ok(check(target, &input));
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
    }
    let count = targets.len();
    let broken = AtomicUsize::new(0);
    let targets = Mutex::new(targets.into_iter());
    let next = || targets.lock().expect("no panic while it is held").next();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(target) = next() {
                    broken.fetch_add(usize::from(!run(target, until, seed, stack << 10)), Ordering::SeqCst);
                }
            });
        }
    });
    let broken = broken.into_inner();
    println!("{} passed, {broken} failed", count - broken);
    Ok(broken == 0)
}

/// Mutates until the end of the run, on a thread with a stack of this length in bytes. `false` if an input violates a
/// guarantee.
fn run(target: &'static Target, until: Until, seed: u64, stack: usize) -> bool {
    let mut corpus = (target.seeds)();
    for place in ["fuzz/seeds", "fuzz/corpus"] {
        let kept = runzeo_fuzz::root().join(place).join(target.name);
        let mut files: Vec<_> =
            std::fs::read_dir(kept).into_iter().flatten().flatten().map(|e| e.path()).collect();
        files.sort();
        corpus.extend(files.iter().filter_map(|path| std::fs::read(path).ok()));
    }
    corpus.push(Vec::new());
    let worker = thread::Builder::new().stack_size(stack).spawn(move || {
        let mut random = Random(seed);
        let begun = Instant::now();
        let mut count = 0u64;
        for input in &corpus {
            if !check(target, input) {
                return Err(input.clone());
            }
        }
        let goes_on = |count: u64| match until {
            Until::Time(time) => !count.is_multiple_of(256) || begun.elapsed() < time,
            Until::Runs(runs) => count < runs,
        };
        while goes_on(count) {
            let mut input = corpus[random.below(corpus.len())].clone();
            let other = &corpus[random.below(corpus.len())];
            mutate(&mut input, other, &mut random);
            if !check(target, &input) {
                return Err(input);
            }
            count += 1;
        }
        Ok((count, corpus.len()))
    });
    match worker.map(thread::JoinHandle::join) {
        Ok(Ok(Ok((count, seeds)))) => {
            println!("{}: {count} inputs from {seeds} seeds, seed {seed}", target.name);
            true
        }
        Ok(Ok(Err(input))) => {
            match save(target, &input) {
                Ok(path) => println!("{}: broken by {path}, seed {seed}", target.name),
                Err(error) => println!("{}: broken by {} ({error})", target.name, input.escape_ascii()),
            }
            false
        }
        _ => {
            println!("{}: the thread ended", target.name);
            false
        }
    }
}

/// Runs one input. `false` if it panics or takes too long.
fn check(target: &Target, input: &[u8]) -> bool {
    // A busy machine may be slow once, but not three times.
    for _ in 0..3 {
        let start = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
            return false;
        }
        if start.elapsed() < SLOW {
            return true;
        }
        eprintln!("{}: {:?} for {} bytes", target.name, start.elapsed(), input.len());
    }
    false
}

fn save(target: &Target, input: &[u8]) -> std::io::Result<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(target.name);
    std::fs::create_dir_all(&dir)?;
    let name = input.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = dir.join(format!("{name:016x}"));
    std::fs::write(&path, input)?;
    Ok(path.display().to_string())
}
