//! `VerdictService`: rows → answers.

mod audit;
mod tokens;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forensics::{MediaId, VerdictId};
use ops::{Shutdown, Tasks};
use prost::Message;
use proto::server::{BATCH_BYTES_MAX, tenant_of};
use proto::v1::{self, verdict_service_server::VerdictService};
use stream::Log;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::config::WatchConfig;
use crate::error::QueryError;
use crate::metrics::Metrics;
use crate::store::{Filter, PageBounds, Store, StoreError};

pub(crate) use audit::Audits;
pub(crate) use watch::WatchStream;

/// Media of one BatchGetVerdicts, and verdicts of one page.
const BATCH_MAX: usize = 1_000;

const PAGE_DEFAULT: usize = 100;

/// Records of one page, before they are answered: below what clients accept, with room for the rest of the message.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;

/// For conditions that few verdicts meet together a page is filled for this long, then given as it is, with a token for the
/// rest. The last look at a thousand candidates may begin within it (10 ms, at a million rows): 20 ms are promised.
const PAGE_PATIENCE: Duration = Duration::from_millis(5);

/// Answers from the store, and watches the topic.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) store: Store,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) topic: Arc<str>,
    pub(crate) watch: WatchConfig,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
}

#[tonic::async_trait]
impl VerdictService for Answers {
    async fn get_verdict(
        &self,
        request: Request<v1::GetVerdictRequest>,
    ) -> Result<Response<v1::Verdict>, Status> {
        let began = Instant::now();
        let answer = self.get(&request).await.map(Response::new).map_err(Status::from);
        self.metrics.answered("GetVerdict", began, &answer);
        answer
    }

    async fn batch_get_verdicts(
        &self,
        request: Request<v1::BatchGetVerdictsRequest>,
    ) -> Result<Response<v1::BatchGetVerdictsResponse>, Status> {
        let began = Instant::now();
        let answer = self.batch_get(request).await.map(Response::new).map_err(Status::from);
        self.metrics.answered("BatchGetVerdicts", began, &answer);
        answer
    }

    async fn list_verdicts(
        &self,
        request: Request<v1::ListVerdictsRequest>,
    ) -> Result<Response<v1::ListVerdictsResponse>, Status> {
        let began = Instant::now();
        let answer = self.list(request).await.map(Response::new).map_err(Status::from);
        self.metrics.answered("ListVerdicts", began, &answer);
        answer
    }

    type WatchVerdictsStream = WatchStream;

    async fn watch_verdicts(
        &self,
        request: Request<v1::WatchVerdictsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let began = Instant::now();
        let answer = watch::start(self, request).await.map(Response::new).map_err(Status::from);
        self.metrics.answered("WatchVerdicts", began, &answer);
        answer
    }
}

impl Answers {
    async fn get(&self, request: &Request<v1::GetVerdictRequest>) -> Result<v1::Verdict, QueryError> {
        use v1::get_verdict_request::By;
        let tenant = tenant_of(request.metadata())?;
        let found = match &request.get_ref().by {
            None => return Err(QueryError::invalid("by", "is missing; give verdict_id or media_id")),
            Some(By::VerdictId(text)) => {
                let id = VerdictId::parse(text)
                    .ok_or_else(|| QueryError::invalid("verdict_id", "must be 64 hexadecimal digits"))?;
                self.store.get(&tenant, id).await?
            }
            Some(By::MediaId(text)) => {
                let media_id = MediaId::parse(text)?.to_string();
                self.store.newest(&tenant, vec![media_id]).await?.pop()
            }
        };
        decode(&found.ok_or(QueryError::NotFound)?)
    }

    async fn batch_get(
        &self,
        request: Request<v1::BatchGetVerdictsRequest>,
    ) -> Result<v1::BatchGetVerdictsResponse, QueryError> {
        let tenant = tenant_of(request.metadata())?;
        let media_ids = request.into_inner().media_ids;
        if media_ids.len() > BATCH_MAX {
            let why = format!("{} media, the most is {BATCH_MAX}", media_ids.len());
            return Err(QueryError::invalid("media_ids", why));
        }
        for text in &media_ids {
            MediaId::parse(text).map_err(|error| QueryError::invalid("media_ids", error.why))?;
        }
        let found = self.store.newest(&tenant, media_ids).await?;
        // Leaving some out would say that they do not exist.
        if found.iter().map(Bytes::len).sum::<usize>() > PAGE_BYTES_MAX {
            return Err(QueryError::TooLarge { max: PAGE_BYTES_MAX });
        }
        let verdicts = found.iter().map(decode).collect::<Result<_, _>>()?;
        Ok(v1::BatchGetVerdictsResponse { verdicts })
    }

    async fn list(
        &self,
        request: Request<v1::ListVerdictsRequest>,
    ) -> Result<v1::ListVerdictsResponse, QueryError> {
        let tenant = tenant_of(request.metadata())?;
        let request = request.into_inner();
        let filter = Filter::try_from(request.filter.unwrap_or_default())?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE_DEFAULT,
            Ok(size) if size <= BATCH_MAX => size,
            _ => return Err(QueryError::invalid("page_size", format!("must be 0 to {BATCH_MAX}"))),
        };
        let binding = tokens::binding(&tenant, &filter);
        let mut after = match request.page_token.as_str() {
            "" => None,
            token => Some(tokens::page(token, &binding)?),
        };
        let (began, mut bytes, mut rows) = (Instant::now(), 0, Vec::new());
        loop {
            // Half of the bytes are left at least, which is more than the largest record.
            let bounds = PageBounds { rows_max: size - rows.len(), bytes_max: PAGE_BYTES_MAX - bytes };
            let page = self.store.list(&tenant, filter.clone(), after, bounds).await?;
            bytes += page.rows.iter().map(|stored| stored.record.len()).sum::<usize>();
            rows.extend(page.rows);
            after = page.next;
            let full = rows.len() == size || bytes > PAGE_BYTES_MAX / 2;
            if full || after.is_none() || began.elapsed() > PAGE_PATIENCE {
                break;
            }
        }
        Ok(v1::ListVerdictsResponse {
            verdicts: rows.iter().map(|stored| decode(&stored.record)).collect::<Result<_, _>>()?,
            next_page_token: after.map(|key| tokens::of_page(key, &binding)).unwrap_or_default(),
        })
    }
}

const _: () = assert!(PAGE_BYTES_MAX < BATCH_BYTES_MAX);

fn decode(record: &Bytes) -> Result<v1::Verdict, QueryError> {
    v1::Verdict::decode(record.clone()).map_err(|error| {
        let (place, why) = ("record".to_owned(), format!("a stored record cannot be read: {error}"));
        QueryError::Store(StoreError::Refused { place, why })
    })
}
