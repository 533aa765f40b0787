// Package canonical writes JSON in the one form of RFC 8785 (JSON
// Canonicalization Scheme), so that the same content always has the same bytes
// and so the same SHA-256 digest, in any language.
//
// Numbers are integers within ±2^53 and nothing else: money travels in strings,
// and a float in sealed text would be a way to mean two amounts at once.
package canonical

import (
	"fmt"
	"sort"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Object is a JSON object. Values are string, bool, nil, int, int64, Object,
// []Object, []string or []any of these.
type Object map[string]any

const maxSafe = 1<<53 - 1 // the largest integer that every JSON reader holds exactly

// Marshal writes v in canonical form. It fails on invalid UTF-8, on unsafe
// integers and on types that have no exact JSON form.
func Marshal(v Object) ([]byte, error) {
	return appendValue(nil, v)
}

func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendString(b, v)
	case int:
		return appendInt(b, int64(v))
	case int64:
		return appendInt(b, v)
	case Object:
		return appendObject(b, v)
	case []Object:
		return appendArray(b, v)
	case []string:
		return appendArray(b, v)
	case []any:
		return appendArray(b, v)
	}
	return nil, fmt.Errorf("canonical: %T has no canonical form", v)
}

func appendInt(b []byte, n int64) ([]byte, error) {
	if n > maxSafe || n < -maxSafe {
		return nil, fmt.Errorf("canonical: %d is not exact in every JSON reader; write it as a string", n)
	}
	return strconv.AppendInt(b, n, 10), nil
}

func appendArray[T any](b []byte, list []T) ([]byte, error) {
	b = append(b, '[')
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendValue(b, e); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendObject(b []byte, o Object) ([]byte, error) {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return lessUTF16(keys[i], keys[j]) })
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendString(b, k); err != nil {
			return nil, err
		}
		b = append(b, ':')
		if b, err = appendValue(b, o[k]); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// lessUTF16 orders keys by UTF-16 code units (RFC 8785, 3.2.3), which differs
// from byte order above U+FFFF.
func lessUTF16(a, b string) bool {
	x, y := utf16.Encode([]rune(a)), utf16.Encode([]rune(b))
	for i := 0; i < len(x) && i < len(y); i++ {
		if x[i] != y[i] {
			return x[i] < y[i]
		}
	}
	return len(x) < len(y)
}

func appendString(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("canonical: %q is not valid UTF-8", s)
	}
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"'), nil
}
