//! Files with several random kinds of damage at once: parts that are changed, cut out, doubled, exchanged or zero.

use crate::damage::unexpected_finding;
use crate::files::{dir_in_memory, fixtures, made, zeofs};
use crate::support::dice::Dice;

const ROUNDS: u64 = 250;

fn damaged(whole: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=dice.below(4) {
        let place = |dice: &mut Dice, len: usize| 4 + usize::try_from(dice.below(len as u64 - 4)).unwrap();
        let at = place(dice, bytes.len());
        let len = usize::try_from(dice.below(300)).unwrap().min(bytes.len() - at);
        match dice.below(7) {
            0 => bytes[at] = dice.below(256) as u8,
            1 => bytes[at..at + len].fill(0),
            2 => drop(bytes.drain(at..at + len)),
            3 => {
                let part = bytes[at..at + len].to_vec();
                let to = place(dice, bytes.len());
                bytes.splice(to..to, part);
            }
            4 if at + 8 <= bytes.len() => {
                // A number that may be a position or a length.
                let number = dice.below(bytes.len() as u64 + 100);
                bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
            }
            5 => {
                let to = place(dice, bytes.len()).min(bytes.len() - len);
                let part = bytes[at..at + len].to_vec();
                bytes[to..to + len].copy_from_slice(&part);
            }
            _ => bytes.truncate(bytes.len().max(200) - len.min(100)),
        }
        if bytes.len() < 100 {
            break;
        }
    }
    bytes
}

/// Every command ends; what `recover` makes is a whole file, of which a second `recover` makes the same.
#[test]
fn whatever_is_damaged_the_copy_is_whole() {
    let mut files: Vec<Vec<u8>> = fixtures().iter().map(|(_, path)| std::fs::read(path).unwrap()).collect();
    for made in made() {
        files.extend(made.files.iter().map(|path| std::fs::read(path).unwrap()));
    }
    let dir = dir_in_memory();
    let paths = ["Data.fs", "New.fs", "Again.fs", "Copy.fs"].map(|name| dir.path().join(name));
    let [path, new, again, copy] = paths.each_ref().map(|path| path.to_str().unwrap());
    for round in 0..ROUNDS {
        let mut dice = Dice::new(7, round);
        let bytes = damaged(&files[usize::try_from(dice.below(files.len() as u64)).unwrap()], &mut dice);
        std::fs::write(path, &bytes).unwrap();
        let commands = [&["dump", "--refs", path][..], &["tail", path], &["test", path], &["stats", path]];
        for arguments in commands.into_iter().chain([
            &["refs", path][..],
            &["oid", path, "1"],
            &["trees", path],
            &["diff", path, path],
        ]) {
            let (_, status) = zeofs(arguments);
            assert!(status == 0 || status == 4, "round {round}: {arguments:?}: {status}");
        }
        // A copy of what is damaged, or has other damage than the copy before, ends with an error.
        let (_, status) = zeofs(&["copy", path, copy]);
        assert!([0, 1, 4].contains(&status), "round {round}: copy: {status}");
        let options = if dice.one_in(2) { "-fp" } else { "-f" };
        let (text, status) = zeofs(&["recover", options, path, new]);
        assert!(status == 0 || status == 4, "round {round}: {}", String::from_utf8_lossy(&text));
        if let Some(what) = unexpected_finding(&paths[1]) {
            panic!("round {round} {options}: {what}");
        }
        let (text, status) = zeofs(&["recover", "-f", new, again]);
        assert_eq!(status, 0, "round {round}: {}", String::from_utf8_lossy(&text));
        assert!(std::fs::read(new).unwrap() == std::fs::read(again).unwrap(), "round {round}");
    }
}
