//! Who a pod is: tokens of service accounts as the kubelet asks for them, and what a review makes of a token.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec,
    TokenReviewStatus,
};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

/// The audience of the controller, which tokens for it must name.
pub const AUDIENCE: &str = "ringside.dev";

/// The shortest life of a token that Kubernetes gives.
const LIFE: Duration = Duration::from_secs(600);

/// A token of the service account `account`, for `audience`, good for ten minutes, which is the least that Kubernetes
/// gives. `pod` binds it, as a kubelet does for a projected token: its name and UID are in the token, and a review refuses
/// it once the pod is gone. A bound pod must run as that service account.
///
/// # Errors
/// Whatever the API server refuses.
pub async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    audience: &str,
    pod: Option<&Pod>,
) -> kube::Result<String> {
    token_living(client, namespace, account, audience, pod, LIFE).await
}

/// As [`token`], good for `life`: ten minutes at least.
///
/// # Errors
/// Whatever the API server refuses.
pub async fn token_living(
    client: &Client,
    namespace: &str,
    account: &str,
    audience: &str,
    pod: Option<&Pod>,
    life: Duration,
) -> kube::Result<String> {
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
    });
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: bound,
            expiration_seconds: i64::try_from(life.as_secs()).ok(),
        },
        ..Default::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let made = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    Ok(made.status.map(|status| status.token).unwrap_or_default())
}

/// What the API server makes of `token` when it is shown for `audience`.
///
/// # Errors
/// Whatever the API server refuses; a bad token is no error but an answer.
pub async fn review(
    client: &Client,
    token: &str,
    audience: &str,
) -> kube::Result<TokenReviewStatus> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            audiences: Some(vec![audience.to_owned()]),
            token: Some(token.to_owned()),
        },
        ..Default::default()
    };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let reviewed = reviews.create(&PostParams::default(), &review).await?;
    Ok(reviewed.status.unwrap_or_default())
}
