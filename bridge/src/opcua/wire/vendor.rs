//! The one file that names the async-opcua crates. They serve as codec, crypto and secure
//! channel; sessions, subscriptions and every decision over them are ours, because the crates'
//! own event loop acknowledges before it delivers and does not survive a reconnect.

use std::sync::LazyLock;

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
pub(super) use opcua_types::type_loader::{ByteStringBody, XmlBody};
pub(super) use opcua_types::{
    ApplicationDescription, ApplicationType, Array, AttributeId, BinaryDecodable,
    BrowseDescription, BrowseDirection, BrowseResult, BrowseResultMask, ByteString, Context,
    DataChangeFilter, DataChangeNotification, DataChangeTrigger, DataTypeDefinition, DataValue,
    DateTime, DeadbandType, DecodingOptions, EUInformation, EndpointDescription, EnumDefinition,
    EnumValueType, Error as VendorError, ExpandedNodeId, ExtensionObject, GetEndpointsRequest,
    Identifier, LocalizedText, MessageSecurityMode, MonitoredItemCreateRequest, MonitoringMode,
    MonitoringParameters, NamespaceMap, NodeClass, NodeId, NotificationMessage, Range, ReadValueId,
    ReferenceDescription, ReferenceTypeId, RequestHeader, StatusChangeNotification, StatusCode,
    StructureDefinition, StructureType, TimestampsToReturn, TypeLoaderCollection, UserTokenType,
    Variant, VariantScalarTypeId,
};
#[cfg(test)]
pub(super) use opcua_types::{BinaryEncodable, EnumField, Guid, StructureField, UAString};

/// To decode, or encode, a part of a message by itself, of `bytes` bytes at most.
pub(super) fn context(bytes: usize) -> Context<'static> {
    static NAMESPACES: LazyLock<NamespaceMap> = LazyLock::new(NamespaceMap::new);
    static LOADERS: LazyLock<TypeLoaderCollection> = LazyLock::new(TypeLoaderCollection::new);
    let options = DecodingOptions {
        max_string_length: bytes,
        max_byte_string_length: bytes,
        max_array_length: bytes,
        ..DecodingOptions::default()
    };
    Context::new(&NAMESPACES, &LOADERS, options)
}
