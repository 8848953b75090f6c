//! Runs fuzz targets on a stable compiler: mutates seeds for some seconds, the same way for the same seed.
//!
//!     fuzz-briefly SECONDS [SEED [TARGET...]]
//!
//! Without TARGET all run, SECONDS each. Besides a target's own seeds, the files in `fuzz/corpus/TARGET` are used. An input
//! that breaks a promise, or takes longer than two seconds, is written to `fuzz/artifacts/TARGET`; the exit status is then 1.
//! `fuzz-briefly FILE TARGET` runs a single input.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use runzeo_fuzz::mutate::{Random, mutate};
use runzeo_fuzz::{TARGETS, Target};

/// As small as the stack of a server's thread, so that recursion shows.
const STACK_LEN: usize = 128 << 10;
const SLOW: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let named = |names: &[String]| {
        TARGETS.iter().filter(|t| names.is_empty() || names.iter().any(|n| n == t.name)).collect::<Vec<_>>()
    };
    let Some(first) = args.first() else {
        eprintln!("usage: fuzz-briefly SECONDS [SEED [TARGET...]] | fuzz-briefly FILE TARGET");
        return ExitCode::from(2);
    };
    if let Ok(seconds) = first.parse::<f64>() {
        let seed = args.get(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
        let targets = named(args.get(2..).unwrap_or_default());
        if targets.is_empty() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("no such target; there are {}", names.join(", "));
            return ExitCode::from(2);
        }
        let mut good = true;
        for target in targets {
            good &= run(target, Duration::from_secs_f64(seconds), seed);
        }
        return if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match (std::fs::read(first), named(args.get(1..).unwrap_or_default()).as_slice()) {
        (Ok(input), [target]) => {
            if check(target, &input) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        (Err(error), _) => {
            eprintln!("{first}: {error}");
            ExitCode::from(2)
        }
        _ => {
            eprintln!("which target?");
            ExitCode::from(2)
        }
    }
}

/// Mutate for a while. False if an input was found that breaks a promise.
fn run(target: &'static Target, duration: Duration, seed: u64) -> bool {
    let mut corpus = (target.seeds)();
    let kept = runzeo_fuzz::root().join("fuzz/corpus").join(target.name);
    let mut files: Vec<_> =
        std::fs::read_dir(kept).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    corpus.extend(files.iter().filter_map(|path| std::fs::read(path).ok()));
    corpus.push(Vec::new());
    let worker = std::thread::Builder::new().stack_size(STACK_LEN).spawn(move || {
        let mut random = Random(seed);
        let end = Instant::now() + duration;
        let mut count = 0u64;
        for input in &corpus {
            if !check(target, input) {
                return Err(input.clone());
            }
        }
        while count % 256 != 0 || Instant::now() < end {
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
    match worker.map(std::thread::JoinHandle::join) {
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

/// Run one input. False if it panics or takes too long.
fn check(target: &Target, input: &[u8]) -> bool {
    let start = Instant::now();
    let good = catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok();
    if start.elapsed() > SLOW {
        eprintln!("{}: {:?} for {} bytes", target.name, start.elapsed(), input.len());
        return false;
    }
    good
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
