package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
	"gopkg.in/yaml.v3"
)

var (
	//go:embed openapi.yaml
	openAPI []byte
	//go:embed docs.html
	docsPage string
	//go:embed docs.css
	docsStyle []byte
)

// serveDocs serves the description, as a file and as a page made from it. Both are
// in the binary, so a failure to read them is a mistake of ours that every start
// and every test would show.
func serveDocs(e *echo.Echo) {
	page, err := renderDocs(openAPI)
	if err != nil {
		panic(err)
	}
	serve := func(path, kind string, body []byte) {
		e.GET(path, func(c echo.Context) error { return c.Blob(http.StatusOK, kind, body) })
	}
	serve("/openapi.yaml", "application/yaml", openAPI)
	serve("/docs", "text/html; charset=utf-8", page)
	serve("/docs/style.css", "text/css; charset=utf-8", docsStyle)
}

// The part of OpenAPI that the description uses.
type spec struct {
	Info struct {
		Title       string `yaml:"title"`
		Summary     string `yaml:"summary"`
		Description string `yaml:"description"`
	} `yaml:"info"`
	Tags []struct {
		Name string `yaml:"name"`
	} `yaml:"tags"`
	Paths      ordered[ordered[operation]] `yaml:"paths"`
	Components struct {
		Schemas    ordered[schema]      `yaml:"schemas"`
		Parameters map[string]parameter `yaml:"parameters"`
		Responses  map[string]response  `yaml:"responses"`
	} `yaml:"components"`
}

type operation struct {
	ID          string      `yaml:"operationId"`
	Tags        []string    `yaml:"tags"`
	Summary     string      `yaml:"summary"`
	Description string      `yaml:"description"`
	Parameters  []parameter `yaml:"parameters"`
	Body        *struct {
		Content ordered[media] `yaml:"content"`
	} `yaml:"requestBody"`
	Responses ordered[response] `yaml:"responses"`
}

type parameter struct {
	Ref         string `yaml:"$ref"`
	Name        string `yaml:"name"`
	In          string `yaml:"in"`
	Required    bool   `yaml:"required"`
	Description string `yaml:"description"`
	Schema      schema `yaml:"schema"`
}

type response struct {
	Ref         string         `yaml:"$ref"`
	Description string         `yaml:"description"`
	Content     ordered[media] `yaml:"content"`
}

type media struct {
	Schema  schema          `yaml:"schema"`
	Example ordered[string] `yaml:"example"`
}

type schema struct {
	Ref         string          `yaml:"$ref"`
	Type        string          `yaml:"type"`
	Description string          `yaml:"description"`
	Enum        []string        `yaml:"enum"`
	Default     string          `yaml:"default"`
	Items       *schema         `yaml:"items"`
	Properties  ordered[schema] `yaml:"properties"`
	Required    []string        `yaml:"required"`
}

// ordered is a YAML mapping in the order in which it is written: a reader meets
// things in the order that the writer meant.
type ordered[T any] []entry[T]

type entry[T any] struct {
	Name  string
	Value T
}

func (o *ordered[T]) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: not a mapping", n.Line)
	}
	for i := 0; i < len(n.Content); i += 2 {
		e := entry[T]{Name: n.Content[i].Value}
		if err := n.Content[i+1].Decode(&e.Value); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		*o = append(*o, e)
	}
	return nil
}

// refName is the last part of a reference, such as "#/components/schemas/Problem".
func refName(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// typeOf says in words what a value is, with a link where it is described elsewhere.
func typeOf(s schema) template.HTML {
	switch {
	case s.Ref != "":
		name := html.EscapeString(refName(s.Ref))
		return template.HTML(`<a href="#` + name + `">` + name + `</a>`)
	case s.Type == "array" && s.Items != nil:
		return "list of " + typeOf(*s.Items)
	}
	return template.HTML(html.EscapeString(s.Type))
}

var inCode = regexp.MustCompile("`([^`]+)`")

// prose turns paragraphs and `code` into HTML. Everything else stays text.
func prose(text string) template.HTML {
	var b strings.Builder
	for _, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if p != "" {
			b.WriteString("<p>" + inCode.ReplaceAllString(html.EscapeString(p), "<code>$1</code>") + "</p>")
		}
	}
	return template.HTML(b.String())
}

// example writes a flat example as JSON.
func example(fields ordered[string]) (string, error) {
	lines := make([]string, len(fields))
	for i, f := range fields {
		name, err := json.Marshal(f.Name)
		if err != nil {
			return "", err
		}
		value, err := json.Marshal(f.Value)
		if err != nil {
			return "", err
		}
		lines[i] = fmt.Sprintf("  %s: %s", name, value)
	}
	return "{\n" + strings.Join(lines, ",\n") + "\n}", nil
}

// resolve puts what a reference to a shared parameter or response stands for in
// its place.
func (s *spec) resolve() error {
	for _, path := range s.Paths {
		for _, op := range path.Value {
			for i, p := range op.Value.Parameters {
				if p.Ref == "" {
					continue
				}
				shared, ok := s.Components.Parameters[refName(p.Ref)]
				if !ok {
					return fmt.Errorf("%s: no parameter %s", path.Name, p.Ref)
				}
				op.Value.Parameters[i] = shared
			}
			for i, r := range op.Value.Responses {
				if r.Value.Ref == "" {
					continue
				}
				shared, ok := s.Components.Responses[refName(r.Value.Ref)]
				if !ok {
					return fmt.Errorf("%s: no response %s", path.Name, r.Value.Ref)
				}
				op.Value.Responses[i].Value = shared
			}
		}
	}
	return nil
}

// renderDocs makes the page of a description.
func renderDocs(source []byte) ([]byte, error) {
	var s spec
	if err := yaml.Unmarshal(source, &s); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	if err := s.resolve(); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	t, err := template.New("docs").Funcs(template.FuncMap{
		"prose": prose, "typeOf": typeOf, "example": example, "upper": strings.ToUpper,
		"has": slices.Contains[[]string],
	}).Parse(docsPage)
	if err != nil {
		return nil, fmt.Errorf("read docs.html: %w", err)
	}
	var page bytes.Buffer
	if err := t.Execute(&page, s); err != nil {
		return nil, fmt.Errorf("render docs: %w", err)
	}
	return page.Bytes(), nil
}
