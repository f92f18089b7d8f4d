//! The one file that names the async-opcua crates. They serve as codec, crypto and secure
//! channel; sessions, subscriptions and every decision over them are ours, because the crates'
//! own event loop acknowledges before it delivers and does not survive a reconnect.

pub(super) use opcua_client::services::{
    ActivateSession, Browse, BrowseNext, CloseSession, CreateMonitoredItems, CreateSession,
    CreateSubscription, DeleteSubscriptions, Publish, Read, Republish, TransferSubscriptions,
};
pub(super) use opcua_client::transport::{
    AsyncSecureChannel, Connector, RequestRecv, SecureChannelState, StreamConnection,
    StreamConnector, StreamTransport, TransportConfiguration, TransportPollResult,
};
pub(super) use opcua_client::{
    ClientBuilder, ClientConfig, IdentityToken, SessionBuilder, UARequest,
};
pub(super) use opcua_core::ResponseMessage;
pub(super) use opcua_core::comms::tcp_codec::TcpCodec;
pub(super) use opcua_core::handle::AtomicHandle;
pub(super) use opcua_core::sync::RwLock;
pub(super) use opcua_crypto::{CertificateStore, PrivateKey, X509, X509Data};
pub(super) use opcua_types::type_loader::ByteStringBody;
pub(super) use opcua_types::{
    ApplicationDescription, ApplicationType, Array, AttributeId, BrowseDescription,
    BrowseDirection, BrowseResult, BrowseResultMask, ByteString, DataChangeFilter,
    DataChangeNotification, DataChangeTrigger, DataValue, DateTime, DeadbandType, DecodingOptions,
    EndpointDescription, Error as VendorError, ExpandedNodeId, ExtensionObject,
    GetEndpointsRequest, LocalizedText, MessageSecurityMode, MonitoredItemCreateRequest,
    MonitoringMode, MonitoringParameters, NodeClass, NodeId, NotificationMessage, ReadValueId,
    ReferenceTypeId, RequestHeader, StatusChangeNotification, StatusCode, TimestampsToReturn,
    UserTokenType, Variant,
};
#[cfg(test)]
pub(super) use opcua_types::{Guid, VariantScalarTypeId};
