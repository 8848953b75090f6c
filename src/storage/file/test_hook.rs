//! The extension method that ZEO's own tests call.

use super::FileStorage;
use crate::storage::{ExtensionMethods, Result, StorageError};

const NAME: &str = "answer_to_the_ultimate_question";

impl ExtensionMethods for FileStorage {
    fn names(&self) -> Vec<&'static str> {
        vec![NAME]
    }

    fn call(&self, name: &str) -> Result<i64> {
        match name {
            NAME => Ok(42),
            _ => Err(StorageError::Unsupported(format!("no extension method {name}"))),
        }
    }
}
