//! The authentication protocols that a server knows: those that are built in, and those that a program adds.

use super::{Kind, digest};

/// The protocols that this server knows.
#[derive(Clone, Debug)]
pub struct Protocols(Vec<Kind>);

impl Protocols {
    /// Those that every server has: `digest`.
    pub fn builtin() -> Protocols {
        Protocols(vec![digest::KIND])
    }

    /// Adds one. It replaces another of the same name.
    pub fn register(&mut self, kind: Kind) {
        self.0.retain(|known| known.name != kind.name);
        self.0.push(kind);
    }

    /// The protocol of this name. The error lists those that there are.
    pub fn get(&self, name: &str) -> Result<&Kind, String> {
        self.0.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let names: Vec<_> = self.0.iter().map(|kind| format!("'{}'", kind.name)).collect();
            format!(
                "there is no authentication protocol '{}'; use {}",
                name.escape_debug(),
                names.join(" or ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_found_by_name() {
        let mut protocols = Protocols::builtin();
        assert_eq!(protocols.get("digest").map(|kind| kind.name), Ok("digest"));
        let error = protocols.get("sesame\n").unwrap_err();
        assert!(
            error.starts_with("there is no authentication protocol 'sesame\\n'; use 'digest'"),
            "{error}"
        );
        protocols.register(Kind { name: "own", ..digest::KIND });
        assert!(protocols.get("own").is_ok());
    }
}
