//! Runs fuzz targets on a stable compiler: mutates seeds for some seconds, the same way for the same seed.
//!
//! ```text
//! briefly [--seconds N] [--seed N] [TARGET...]
//! briefly --input FILE TARGET
//! ```
//!
//! All targets run if none is named. Besides a target's own seeds, the files in `fuzz/corpus/TARGET` are used. An input that
//! breaks a promise, or takes longer than two seconds, is written to `fuzz/artifacts/TARGET`; the exit status is then 1.

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

/// Do what the command line says. False if a promise was broken.
fn options() -> Result<bool, String> {
    let (mut seconds, mut seed, mut input) = (5.0, 1, None);
    let mut targets = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = |what: &str| args.next().ok_or_else(|| format!("{what} wants a value"));
        match arg.as_str() {
            "--seconds" => seconds = number("--seconds")?.parse().map_err(|_| "--seconds wants a number")?,
            "--seed" => seed = number("--seed")?.parse().map_err(|_| "--seed wants a number")?,
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
    let broken =
        targets.into_iter().filter(|target| !run(target, Duration::from_secs_f64(seconds), seed)).count();
    println!("{} passed, {broken} failed", count - broken);
    Ok(broken == 0)
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
