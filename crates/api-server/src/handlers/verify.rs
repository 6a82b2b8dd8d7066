//! `POST /images/verify`: a line for each image and layer, as they are looked at.

use docker_api::image::Check;
use docker_api::json;
use engine::model::{CheckVerdict, CheckedKind, ImageCheck};
use engine::{Engine, ImageRepair};

use super::registries::logins_of;
use crate::body::ReplyBody;
use crate::reply::{self, Reply};
use crate::request::Request;

pub(crate) fn images(engine: &Engine, request: &Request) -> Reply {
    let repair = if request.query.flag("repair") { ImageRepair::Yes(logins_of(request)) } else { ImageRepair::No };
    let mut checks = engine.verify_images(repair);
    let (writer, body) = ReplyBody::busy();
    tokio::spawn(async move {
        while let Some(check) = checks.recv().await {
            if writer.send(json::to_line(&line(check))).await.is_err() {
                return;
            }
        }
    });
    reply::stream("application/json", body)
}

fn line(check: ImageCheck) -> Check {
    let kind = match check.kind {
        CheckedKind::Image => "image",
        CheckedKind::Layer => "layer",
    };
    let (verdict, reason) = match check.verdict {
        CheckVerdict::Whole => ("whole", String::new()),
        CheckVerdict::Repaired(reason) => ("repaired", reason),
        CheckVerdict::Damaged(reason) => ("damaged", reason),
    };
    Check { kind: kind.into(), id: check.digest.to_string(), images: check.images, verdict: verdict.into(), reason }
}
