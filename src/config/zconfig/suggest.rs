//! "Did you mean ...?": the known name that is most similar to an unknown one.

/// Longer names are no typing mistakes, and the search is quadratic in the length.
const LEN_MAX: usize = 64;

/// The candidate with the fewest typing mistakes, if they are few.
pub fn nearest<'a>(unknown: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if unknown.len() > LEN_MAX {
        return None;
    }
    let allowed = (unknown.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(unknown, candidate), candidate))
        .filter(|(mistakes, _)| *mistakes <= allowed)
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, candidate)| candidate)
}

/// Number of insertions, deletions, replacements and swaps of neighbours between two texts.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut best = (above[j] + usize::from(a != b)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from[i - 1] == *b && *a == to[j - 1] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let keys = ["cache-size", "address", "read-only", "pack-gc"];
        for (unknown, expected) in [
            ("cache-siz", Some("cache-size")),
            ("adress", Some("address")),
            ("raed-only", Some("read-only")),
            ("readonly", Some("read-only")),
            ("quota", None),
            ("", None),
        ] {
            assert_eq!(nearest(unknown, keys), expected, "{unknown}");
        }
    }
}
