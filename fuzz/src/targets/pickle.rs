//! Pickles: the cost of reading is bounded by the length, and a rewritten pickle can be read again.

use runzeo::internal::pickle::read::{Accept, read};
use runzeo::internal::pickle::record::class_name;
use runzeo::internal::pickle::rewrite::rewrite;
use runzeo::internal::pickle::{Dialect, globals};
use runzeo::internal::wire::value::{Value, extension_dict};

pub fn run(data: &[u8]) {
    class_name(data);
    extension_dict(data);
    let message = Accept { global: globals::in_message, persistent: false, nodes_max: 1 << 16 };
    for accept in [Accept::RECORD, message] {
        let Ok(tree) = read(data, accept) else { continue };
        assert!(tree.len() <= data.len());
        let _ = Value::from_tree(&tree, tree.root());
        for dialect in [Dialect::Python2, Dialect::Python3] {
            if let Ok(written) = rewrite(&tree, tree.root(), dialect) {
                assert!(written.len() <= 64 * data.len() + 8192, "{} of {}", written.len(), data.len());
                let again = read(&written, Accept::RECORD)
                    .unwrap_or_else(|e| panic!("{e} in {}", written.escape_ascii()));
                assert_eq!(again.len(), written.len());
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = super::recorded_payloads();
    seeds.extend(
        [
            &b"(dp0\nS'a'\np1\n(lp2\nI1\naL2L\naF1.5\naVtext\np3\nas."[..],
            b"\x80\x02cpersistent.mapping\nPersistentMapping\nq\x01.\x80\x02}q\x02U\x04dataq\x03}q\x04s.",
            b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x01m\x94\x8c\x01C\x94\x93\x94)\x81\x94}\x94b.",
            b"\x80\x05\x96\x03\x00\x00\x00\x00\x00\x00\x00abc\x94\x8f\x94(K\x01K\x02\x90.",
            b"(U\x08\x00\x00\x00\x00\x00\x00\x00\x01cm\nC\ntQ.",
            b"(iZopeUndo.Prefix\nPrefix\nq\x01}q\x02(U\x04pathq\x03]q\x04U\x00aU\x06lengthK\x01ub.",
            b"]q\x00(]q\x01(h\x00h\x01eh\x01h\x01e.",
            b"(]q\x00(h\x00tq\x01ah\x01t.",
        ]
        .map(<[u8]>::to_vec),
    );
    seeds
}
