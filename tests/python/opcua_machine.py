"""What an asyncua server has beside counters: an enumeration, a structure that holds one, a measured
value with unit and range, and events. The names are those of opcua-js/server.mjs.
"""

from asyncua import ua
from asyncua.common.structures104 import new_enum, new_struct, new_struct_field

STATES = ["Stopped", "Running", "Faulted"]
# Every so often an event is severe.
SEVERE_EVERY = 5


class Machine:
    """State, Report and Temperature, set at every tick."""

    async def add(self, server, index):
        self._enum = await new_enum(server, index, "MachineState", STATES)
        self._struct, _ = await new_struct(
            server,
            index,
            "MachineReport",
            [
                new_struct_field("Temperature", ua.VariantType.Double),
                new_struct_field("State", self._enum),
                new_struct_field("Label", ua.VariantType.String),
                new_struct_field("Samples", ua.VariantType.Int32, array=True),
            ],
        )
        await server.load_data_type_definitions()
        objects = server.nodes.objects
        self._state = await objects.add_variable(
            ua.NodeId("State", index), "State", ua.Variant(0, ua.VariantType.Int32),
            datatype=self._enum.nodeid,
        )
        self._report = await objects.add_variable(
            ua.NodeId("Report", index), "Report", self._made(0), datatype=self._struct.nodeid
        )
        self._temperature = await objects.add_variable(
            ua.NodeId("Temperature", index), "Temperature", 20.0
        )
        celsius = ua.EUInformation(DisplayName=ua.LocalizedText("°C"), UnitId=4408652)
        await self._temperature.add_property(0, "EngineeringUnits", celsius)
        await self._temperature.add_property(0, "EURange", ua.Range(-20.0, 120.0))

    async def tick(self, value, out):
        await self._state.write_value(ua.Variant(value % 3, ua.VariantType.Int32))
        out.write(event="set", name="State", value=value % 3, status=0)
        report = self._made(value)
        await self._report.write_value(report)
        fields = {
            "temperature": report.Temperature,
            "state": int(report.State),
            "label": report.Label,
            "samples": report.Samples,
        }
        out.write(event="set", name="Report", value=fields, status=0)
        await self._temperature.write_value(report.Temperature)
        out.write(event="set", name="Temperature", value=report.Temperature, status=0)

    def _made(self, value):
        return ua.MachineReport(
            Temperature=20 + (value % 50) / 10,
            State=ua.MachineState(value % 3),
            Label=f"tick {value}",
            Samples=[value, value + 1, value + 2],
        )


class Events:
    """One at every tick, of the server itself."""

    async def add(self, server):
        self._generator = await server.get_event_generator()

    async def tick(self, value, out):
        severity = 700 if value % SEVERE_EVERY == 0 else 100
        message = f"tick {value}"
        self._generator.event.Severity = severity
        await self._generator.trigger(message=message)
        out.write(event="happened", message=message, severity=severity)
