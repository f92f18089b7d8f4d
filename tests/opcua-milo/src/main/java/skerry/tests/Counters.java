package skerry.tests;

import java.util.ArrayList;
import java.util.List;
import org.eclipse.milo.opcua.sdk.core.Reference;
import org.eclipse.milo.opcua.sdk.server.OpcUaServer;
import org.eclipse.milo.opcua.sdk.server.api.DataItem;
import org.eclipse.milo.opcua.sdk.server.api.ManagedNamespaceWithLifecycle;
import org.eclipse.milo.opcua.sdk.server.api.MonitoredItem;
import org.eclipse.milo.opcua.sdk.server.nodes.UaVariableNode;
import org.eclipse.milo.opcua.sdk.server.util.SubscriptionModel;
import org.eclipse.milo.opcua.stack.core.Identifiers;
import org.eclipse.milo.opcua.stack.core.types.builtin.DataValue;
import org.eclipse.milo.opcua.stack.core.types.builtin.LocalizedText;
import org.eclipse.milo.opcua.stack.core.types.builtin.Variant;

/** {@code Counter0}, {@code Counter1}, … below Objects. */
final class Counters extends ManagedNamespaceWithLifecycle {
    private final List<UaVariableNode> nodes = new ArrayList<>();
    private final SubscriptionModel subscriptions;

    Counters(OpcUaServer server, int count) {
        super(server, "urn:skerry:tests");
        subscriptions = new SubscriptionModel(server, this);
        getLifecycleManager().addLifecycle(subscriptions);
        getLifecycleManager().addStartupTask(() -> {
            for (int number = 0; number < count; number++) {
                nodes.add(counter("Counter" + number));
            }
        });
    }

    List<UaVariableNode> nodes() {
        return nodes;
    }

    private UaVariableNode counter(String name) {
        UaVariableNode node = UaVariableNode.build(getNodeContext(), builder -> builder
                .setNodeId(newNodeId(name))
                .setBrowseName(newQualifiedName(name))
                .setDisplayName(LocalizedText.english(name))
                .setDataType(Identifiers.Int64)
                .setTypeDefinition(Identifiers.BaseDataVariableType)
                .setValue(new DataValue(new Variant(0L)))
                .buildAndAdd());
        node.addReference(new Reference(
                node.getNodeId(),
                Identifiers.Organizes,
                Identifiers.ObjectsFolder.expanded(),
                Reference.Direction.INVERSE));
        return node;
    }

    @Override
    public void onDataItemsCreated(List<DataItem> items) {
        subscriptions.onDataItemsCreated(items);
    }

    @Override
    public void onDataItemsModified(List<DataItem> items) {
        subscriptions.onDataItemsModified(items);
    }

    @Override
    public void onDataItemsDeleted(List<DataItem> items) {
        subscriptions.onDataItemsDeleted(items);
    }

    @Override
    public void onMonitoringModeChanged(List<MonitoredItem> items) {
        subscriptions.onMonitoringModeChanged(items);
    }
}
