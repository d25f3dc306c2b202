{% macro painted(colour, opacity) %}
<Fill>
  <CssParameter name="fill">{{ colour }}</CssParameter>
  <CssParameter name="fill-opacity">{{ opacity }}</CssParameter>
</Fill>
<Stroke>
  <CssParameter name="stroke">{{ colour }}</CssParameter>
</Stroke>
{%- endmacro %}
<?xml version='1.0' encoding='utf-8'?>
<StyledLayerDescriptor version="1.0.0" xmlns="http://www.opengis.net/sld" xmlns:ogc="http://www.opengis.net/ogc">
  <NamedLayer>
    <Name>{{ layer.name.rsplit("/", 1)[-1] }}</Name>
    <UserStyle>
      <FeatureTypeStyle>
        {% if layer.is_raster %}
        <Rule>
          <RasterSymbolizer>
            <ChannelSelection>
              <GrayChannel>
                <SourceChannelName>{{ layer.band }}</SourceChannelName>
              </GrayChannel>
            </ChannelSelection>
            <ColorMap type="{{ "ramp" if layer.kind == "ramp" else "values" }}">
              {% for value, colour in layer.stops %}
              <ColorMapEntry color="{{ colour }}" quantity="{{ "%g" | format(value) }}" label="{{ "%g" | format(value) }}" />
              {% endfor %}
            </ColorMap>
          </RasterSymbolizer>
        </Rule>
        {% else %}
        {% for first, second, colour in layer.classes %}
        <Rule>
          <Title>{{ second if layer.by_verdict else "%g to %g" | format(first, second) }}</Title>
          <ogc:Filter>
            {% if not layer.by_verdict %}
            <ogc:And>
              <ogc:PropertyIsGreaterThan>
                <ogc:PropertyName>prob_max</ogc:PropertyName>
                <ogc:Literal>{{ "%g" | format(first) }}</ogc:Literal>
              </ogc:PropertyIsGreaterThan>
              <ogc:PropertyIsLessThanOrEqualTo>
                <ogc:PropertyName>prob_max</ogc:PropertyName>
                <ogc:Literal>{{ "%g" | format(second) }}</ogc:Literal>
              </ogc:PropertyIsLessThanOrEqualTo>
            </ogc:And>
            {% elif first %}
            <ogc:PropertyIsEqualTo>
              <ogc:PropertyName>verdict</ogc:PropertyName>
              <ogc:Literal>{{ first }}</ogc:Literal>
            </ogc:PropertyIsEqualTo>
            {% else %}
            <ogc:PropertyIsNull>
              <ogc:PropertyName>verdict</ogc:PropertyName>
            </ogc:PropertyIsNull>
            {% endif %}
          </ogc:Filter>
          {% if layer.kind == "polygon" %}
          <PolygonSymbolizer>
            {{ painted(colour, "0.35") | indent(12) }}
          </PolygonSymbolizer>
          {% else %}
          <PointSymbolizer>
            <Graphic>
              <Mark>
                <WellKnownName>circle</WellKnownName>
                {{ painted(colour, "1") | indent(16) }}
              </Mark>
            </Graphic>
          </PointSymbolizer>
          {% endif %}
        </Rule>
        {% endfor %}
        {% endif %}
      </FeatureTypeStyle>
    </UserStyle>
  </NamedLayer>
</StyledLayerDescriptor>
