//! `MediaService`.

use std::time::Instant;

use forensics::InvalidReference;
use proto::server::tenant_of;
use proto::v1::{self, media_service_server::MediaService, submit_result};
use stream::Position;
use tonic::{Request, Response, Status};

use crate::error::SubmitError;
use crate::front_door::FrontDoor;

/// Media of one BatchSubmitMedia.
const BATCH_MAX: usize = 1_000;

#[tonic::async_trait]
impl MediaService for FrontDoor {
    async fn submit_media(
        &self,
        request: Request<v1::SubmitMediaRequest>,
    ) -> Result<Response<v1::SubmitMediaResponse>, Status> {
        let began = Instant::now();
        let answer = self.one(request).await;
        self.metrics.duration.with_label_values(&["SubmitMedia"]).observe(began.elapsed().as_secs_f64());
        let position = Some(wire(answer?));
        Ok(Response::new(v1::SubmitMediaResponse { position }))
    }

    async fn batch_submit_media(
        &self,
        request: Request<v1::BatchSubmitMediaRequest>,
    ) -> Result<Response<v1::BatchSubmitMediaResponse>, Status> {
        let began = Instant::now();
        let answer = self.batch(request).await;
        self.metrics.duration.with_label_values(&["BatchSubmitMedia"]).observe(began.elapsed().as_secs_f64());
        Ok(Response::new(v1::BatchSubmitMediaResponse { results: answer? }))
    }
}

impl FrontDoor {
    async fn one(&self, request: Request<v1::SubmitMediaRequest>) -> Result<Position, SubmitError> {
        let tenant = tenant_of(request.metadata())?;
        let media = request.into_inner().media;
        let media = media.ok_or_else(|| InvalidReference::new("media", "is missing"))?;
        let mut answers = self.submit(&tenant, vec![media]).await;
        answers.pop().expect("one answer for one media")
    }

    async fn batch(
        &self,
        request: Request<v1::BatchSubmitMediaRequest>,
    ) -> Result<Vec<v1::SubmitResult>, SubmitError> {
        let tenant = tenant_of(request.metadata())?;
        let media = request.into_inner().media;
        if media.len() > BATCH_MAX {
            let why = format!("{} media, the most is {BATCH_MAX}", media.len());
            return Err(InvalidReference::new("media", why).into());
        }
        let answers = self.submit(&tenant, media).await;
        let result = |answer| match answer {
            Ok(position) => submit_result::Result::Position(wire(position)),
            Err(error) => submit_result::Result::Refusal(SubmitError::into(error)),
        };
        Ok(answers.into_iter().map(|answer| v1::SubmitResult { result: Some(result(answer)) }).collect())
    }
}

fn wire(position: Position) -> v1::InputPosition {
    v1::InputPosition {
        topic: position.topic.to_string(),
        partition: position.partition,
        offset: position.offset,
    }
}
