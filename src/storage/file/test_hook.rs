//! The extension method that ZEO's own tests call.

use super::FileStorage;
use crate::storage::{ExtensionMethods, Result, StorageError};

const NAME: &str = "answer_to_the_ultimate_question";

impl ExtensionMethods for FileStorage {
    fn names(&self) -> Vec<String> {
        vec![NAME.into()]
    }

    fn call(&self, name: &str, _arguments: &[u8]) -> Result<Vec<u8>> {
        match name {
            NAME => Ok(b"I42\n.".to_vec()),
            _ => Err(StorageError::Unsupported(format!("no extension method {name}"))),
        }
    }
}
