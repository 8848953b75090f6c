//! Questions of threads that wait for rows, and how all that wait are asked at once: in one message, as one database
//! transaction, and loads in one statement. That costs PostgreSQL half of what a message for each would.

use std::mem;

use super::session::{self, RECOVERY_CONFLICT, only};
use crate::base::clock::IoDeadline;
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::postgres::{Answer, Batch, Connection, Lost, Rows, Statement, TooLarge, Value};
use crate::storage::Result;

/// Parameters at most.
pub const VALUES_MAX: usize = 3;
/// The column of [`Question::several`] that has the question's number, from 1.
const NUMBER: usize = 3;

/// What a thread asks: a statement whose parameters are all numbers.
pub struct Question {
    pub statement: &'static Statement,
    /// The same for several questions: an array for each parameter, and a column with the question's number.
    pub several: Option<&'static Statement>,
    pub values: [i64; VALUES_MAX],
    pub asker: Arc<Asker>,
}

/// A thread that waits.
#[derive(Default)]
pub struct Asker {
    state: Mutex<AskerState, rank::PostgresAnswer>,
    woken: Condvar,
}

#[derive(Default)]
enum AskerState {
    #[default]
    Waiting,
    /// Sessions or questions have changed: it may be its turn to ask.
    Called,
    Answered(QuestionOutcome),
}

pub enum QuestionOutcome {
    Answered(Result<Rows>),
    /// The session broke, or the question can be asked again for another reason.
    Lost(Lost),
}

impl Asker {
    /// Has the thread look at the sessions.
    pub fn call(&self) {
        let mut state = self.state.lock();
        if let AskerState::Waiting = *state {
            *state = AskerState::Called;
            drop(state);
            self.woken.notify_one();
        }
    }

    pub fn answer(&self, outcome: QuestionOutcome) {
        *self.state.lock() = AskerState::Answered(outcome);
        self.woken.notify_one();
    }

    /// Waits for the answer. `None`: the thread was called, or the time is over; without one it waits until then.
    pub fn wait(&self, until: Option<IoDeadline>) -> Option<QuestionOutcome> {
        let mut state = self.state.lock();
        loop {
            match mem::take(&mut *state) {
                AskerState::Answered(outcome) => return Some(outcome),
                AskerState::Called => return None,
                AskerState::Waiting => {}
            }
            state = match until {
                Some(until) if until.is_over() => return None,
                Some(until) => self.woken.wait_timeout(state, until.left()),
                None => self.woken.wait(state),
            };
        }
    }
}

/// One outcome for each question. If one of them fails, all are asked again, each on its own.
pub fn ask_all(
    session: &mut Connection,
    questions: &[Question],
) -> std::result::Result<Vec<QuestionOutcome>, Lost> {
    if questions.len() > 1 {
        let executions = executions(questions);
        let together = session.run(&together(questions, &executions).map_err(too_large)?)?;
        if let Some(Ok(answers)) = together.into_iter().next() {
            return Ok(distribute(questions.len(), &executions, answers));
        }
    }
    let apart = session.run(&apart(questions).map_err(too_large)?)?;
    Ok(apart.into_iter().map(outcome).collect())
}

fn too_large(error: TooLarge) -> Lost {
    Lost::new(error.to_string())
}

/// Which questions are asked by one execution, as positions.
fn executions(questions: &[Question]) -> Vec<Vec<usize>> {
    let mut executions: Vec<Vec<usize>> = Vec::new();
    for (at, question) in questions.iter().enumerate() {
        let several = |at: &usize| questions.get(*at).and_then(|other| other.several);
        let shared = executions.iter_mut().find(|execution| {
            question.several.is_some() && execution.first().and_then(several) == question.several
        });
        match shared {
            Some(shared) => shared.push(at),
            None => executions.push(vec![at]),
        }
    }
    executions
}

/// One database transaction.
fn together(questions: &[Question], executions: &[Vec<usize>]) -> std::result::Result<Batch, TooLarge> {
    let mut batch = Batch::new();
    for execution in executions {
        let asked: Vec<&Question> = execution.iter().filter_map(|at| questions.get(*at)).collect();
        match asked.as_slice() {
            [Question { several: Some(several), .. }, _, ..] => {
                let column = |n: usize| asked.iter().filter_map(|one| one.values.get(n).copied()).collect();
                let columns: Vec<Vec<i64>> = (0..several.types.len()).map(column).collect();
                let values: Vec<Value<'_>> = columns.iter().map(|column| Value::Int8s(column)).collect();
                batch.execute(several, &values)?;
            }
            asked => asked.iter().try_for_each(|question| add(&mut batch, question))?,
        }
    }
    batch.sync();
    Ok(batch)
}

/// Each is a database transaction of its own.
fn apart(questions: &[Question]) -> std::result::Result<Batch, TooLarge> {
    let mut batch = Batch::new();
    for question in questions {
        add(&mut batch, question)?;
        batch.sync();
    }
    Ok(batch)
}

fn add(
    batch: &mut Batch,
    Question { statement, values, .. }: &Question,
) -> std::result::Result<(), TooLarge> {
    let values = values.map(Value::Int8);
    batch.execute(statement, values.get(..statement.types.len()).unwrap_or(&values))
}

/// `answers`: the rows of each execution.
fn distribute(count: usize, executions: &[Vec<usize>], answers: Vec<Rows>) -> Vec<QuestionOutcome> {
    let missing = || QuestionOutcome::Answered(Err(session::malformed("a result")));
    let mut outcomes: Vec<QuestionOutcome> = std::iter::repeat_with(missing).take(count).collect();
    let mut put = |at: &usize, answer: Result<Rows>| {
        if let Some(outcome) = outcomes.get_mut(*at) {
            *outcome = QuestionOutcome::Answered(answer);
        }
    };
    for (execution, rows) in executions.iter().zip(answers) {
        match execution.as_slice() {
            [alone] => put(alone, Ok(rows)),
            several => match rows.by_number(NUMBER, several.len()) {
                Ok(parts) => several.iter().zip(parts).for_each(|(at, rows)| put(at, Ok(rows))),
                Err(error) => several.iter().for_each(|at| put(at, Err(error.clone().into()))),
            },
        }
    }
    outcomes
}

/// What a standby has ended, because replication waited for it, is asked again.
fn outcome(answer: Answer) -> QuestionOutcome {
    match &answer {
        Err(error) if error.code.as_str() == RECOVERY_CONFLICT => {
            QuestionOutcome::Lost(Lost::by_server(error))
        }
        _ => QuestionOutcome::Answered(only(answer)),
    }
}
