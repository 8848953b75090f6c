//! Why a server does not start.

/// The reason, and the exit code.
pub(super) struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    /// A failure for a reason outside the configuration.
    pub(super) fn outside(message: String) -> Failure {
        Failure { code: 1, message }
    }
}
