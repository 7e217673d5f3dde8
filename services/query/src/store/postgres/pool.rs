//! A few connections that take turns, and are made anew when they are lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{NoTls, Socket, tls::TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connection::Connection;
use super::{Failure, PostgresConfig};
use crate::store::StoreError;

/// After a failed attempt to connect, others are told its reason for so long instead of trying as well. Chosen: a
/// server that is gone shall not be met by as many attempts as there are requests.
const FAILED_FOR: Duration = Duration::from_millis(100);

/// Clones share the connections, which close when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    config: PostgresConfig,
    /// What each connection is told first.
    session: String,
    tasks: ops::Tasks,
    /// Who may wait or work.
    queue: Arc<Semaphore>,
    /// Who may work.
    turns: Arc<Semaphore>,
    waiting_max: usize,
    /// Guards connections that nobody uses, and the last failure; held for moments only.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    failed: Option<(Instant, StoreError)>,
}

/// A connection, until it is dropped; one that is in the middle of something is not used again.
pub(super) struct Lease {
    connection: Option<Connection>,
    shared: Arc<Shared>,
    _queued: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl Pool {
    /// Of `connections` at most, for which `waiting_max` may wait.
    pub(super) fn new(
        config: &PostgresConfig,
        session: String,
        (connections, waiting_max): (usize, usize),
        tasks: &ops::Tasks,
    ) -> Self {
        let shared = Shared {
            config: config.clone(),
            session,
            tasks: tasks.clone(),
            queue: Arc::new(Semaphore::new(connections + waiting_max)),
            turns: Arc::new(Semaphore::new(connections)),
            waiting_max,
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A connection for this caller alone.
    pub(super) async fn lease(&self) -> Result<Lease, StoreError> {
        let shared = Arc::clone(&self.shared);
        let queued = Arc::clone(&shared.queue).try_acquire_owned();
        let queued = queued.map_err(|_| StoreError::Busy { waiting: shared.waiting_max })?;
        let turn = Arc::clone(&shared.turns).acquire_owned().await.expect("nobody closes it");
        let connection = match shared.idle()? {
            Some(connection) => connection,
            None => {
                let connected = shared.connect().await;
                let connected = connected.map_err(|failure| failure.at(shared.config.address.place()));
                shared.state().failed = connected.as_ref().err().map(|error| (Instant::now(), error.clone()));
                connected?
            }
        };
        Ok(Lease { connection: Some(connection), shared, _queued: queued, _turn: turn })
    }

    /// A connection that does not come back.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        self.shared.connect().await
    }
}

impl Lease {
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is taken at the end only")
    }

    /// Names the place of a failure.
    pub(super) fn at(&self, failure: Failure) -> StoreError {
        failure.at(self.shared.config.address.place())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.is_settled()
        {
            self.shared.state().idle.push(connection);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that lives still; an error when connecting failed a moment ago.
    fn idle(&self) -> Result<Option<Connection>, StoreError> {
        let mut state = self.state();
        while let Some(connection) = state.idle.pop() {
            if connection.is_settled() {
                return Ok(Some(connection));
            }
        }
        match &state.failed {
            Some((at, error)) if at.elapsed() < FAILED_FOR => Err(error.clone()),
            _ => Ok(None),
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let limit = self.config.connect_timeout;
        let connected = tokio::time::timeout(limit, self.try_connect()).await;
        connected.unwrap_or(Err(Failure::Silent { after: limit }))
    }

    async fn try_connect(&self) -> Result<Connection, Failure> {
        let address = &self.config.address;
        let mut config = address.config.clone();
        if let Some(file) = &self.config.password_file {
            let named = |why: &dyn std::fmt::Display| Failure::Password {
                why: format!("query.store.password_file {}: {why}", file.display()),
            };
            let password = tokio::fs::read(file).await.map_err(|error| named(&error))?;
            config.password(password.trim_ascii_end());
        }
        config.connect_timeout(self.config.connect_timeout);
        // A peer that went away without a word is noticed, also while nothing is asked.
        config.tcp_user_timeout(self.config.statement_timeout * 2);
        config.keepalives_idle(Duration::from_secs(30)).keepalives_interval(Duration::from_secs(10));
        let client = match &address.tls {
            Some(tls) => {
                let tls = MakeRustlsConnect::new(rustls::ClientConfig::clone(tls));
                let (client, connection) = config.connect(tls).await?;
                self.drive(connection);
                client
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                self.drive(connection);
                client
            }
        };
        let mut connection = Connection::new(client, self.config.statement_timeout);
        connection.batch(&self.session).await?;
        Ok(connection)
    }

    /// Moves a connection's bytes until its client is dropped or the server leaves.
    fn drive<T>(&self, connection: tokio_postgres::Connection<Socket, T>)
    where
        T: TlsStream + Unpin + Send + 'static,
    {
        self.tasks.spawn_finite("store-connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection to the store ended: {}", super::with_causes(&error));
            }
        });
    }
}
