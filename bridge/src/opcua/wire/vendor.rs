//! The one file that names the async-opcua crates. They serve as codec, crypto and secure
//! channel; sessions, subscriptions and every decision over them are ours, because the crates'
//! own event loop acknowledges before it delivers and does not survive a reconnect.

use std::sync::LazyLock;

pub(super) use opcua_client::services::{
    Browse, BrowseNext, Call, CloseSession, CreateMonitoredItems, CreateSubscription,
    DeleteMonitoredItems, DeleteSubscriptions, HistoryRead, Publish, Read, Republish,
    TransferSubscriptions, Write,
};
pub(super) use opcua_client::transport::{
    AsyncSecureChannel, Connector, RequestRecv, SecureChannelState, StreamConnection,
    StreamConnector, StreamTransport, TransportConfiguration, TransportPollResult,
};
pub(super) use opcua_client::{
    ClientBuilder, ClientConfig, HistoryReadAction, SessionBuilder, UARequest,
};
pub(super) use opcua_core::comms::tcp_codec::TcpCodec;
pub(super) use opcua_core::handle::AtomicHandle;
pub(super) use opcua_core::sync::RwLock;
pub(super) use opcua_core::{RequestMessage, ResponseMessage};
pub(super) use opcua_crypto::{
    CertificateStore, KeySize, PrivateKey, PublicKey, SecurityPolicy, X509, X509Data,
    create_signature_data, legacy_encrypt_secret, random, verify_signature_data,
};
pub(super) use opcua_types::type_loader::{
    ByteStringBody, FallbackTypeLoader, TypeLoader, TypeLoaderPriority, XmlBody,
};
pub(super) use opcua_types::{
    ActivateSessionRequest, AnonymousIdentityToken, ApplicationDescription, ApplicationType,
    Argument, Array, AttributeId, BinaryDecodable, BinaryEncodable, BrowseDescription,
    BrowseDirection, BrowseResult, BrowseResultMask, ByteString, CallMethodRequest, ContentFilter,
    ContentFilterElement, Context, CreateSessionRequest, CreateSessionResponse, DataChangeFilter,
    DataChangeTrigger, DataTypeDefinition, DataValue, DateTime, DeadbandType, DecodingOptions,
    DynEncodable, EUInformation, EncodingResult, EndpointDescription, EnumDefinition,
    EnumValueType, Error as VendorError, EventFilter, EventFilterResult, EventNotificationList,
    ExpandedMessageInfo, ExpandedNodeId, ExtensionObject, FilterOperator, GeneratedTypeLoader,
    GetEndpointsRequest, Guid, HistoryData, HistoryReadValueId, Identifier, LocalizedText,
    MessageSecurityMode, MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters,
    NamespaceMap, NodeClass, NodeId, NotificationMessage, NumericRange, Operand, QualifiedName,
    Range, ReadRawModifiedDetails, ReadValueId, ReferenceDescription, ReferenceTypeId,
    RequestHeader, SignatureData, SimpleAttributeOperand, StatusChangeNotification, StatusCode,
    StructureDefinition, StructureType, TimestampsToReturn, TypeLoaderCollection, UAString,
    UaNullable, UserNameIdentityToken, UserTokenPolicy, UserTokenType, Variant,
    VariantScalarTypeId, VariantTypeId, WriteValue, X509IdentityToken, XmlElement,
};
#[cfg(test)]
pub(super) use opcua_types::{ContextOwned, EnumField, StructureField};

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
