{% from "drawn.xml" import drawn %}
<?xml version='1.0' encoding='utf-8'?>
<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="{{ version }}" styleCategories="Symbology">
  {{ drawn(layer) | indent(2) }}
</qgis>
