package canonical_test

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"pgregory.net/rapid"

	"sluice/internal/canonical"
)

type object = canonical.Object

func TestRFC8785(t *testing.T) {
	for name, c := range map[string]struct {
		in   object
		want string
	}{
		"empty":   {object{}, `{}`},
		"nothing": {nil, `{}`},
		// RFC 8785, 3.2.3: the sorting example, by UTF-16 code units. The emoji sorts
		// below U+FB33 by its first surrogate; by bytes or by runes it would sort above.
		"sorting": {object{
			"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
			"\U0001f600": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis",
		}, `{"\r":"Carriage Return","1":"One","` + "\u0080" + `":"Control","` + "\u00f6" + `":"Latin Small Letter O With Diaeresis","` +
			"\u20ac" + `":"Euro Sign","` + "\U0001f600" + `":"Emoji: Grinning Face","` + "\ufb33" + `":"Hebrew Letter Dalet With Dagesh"}`},
		// RFC 8785, 3.2.2: the string of the example, and its literals.
		"strings": {object{
			"string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/", "literals": []any{nil, true, false},
		}, `{"literals":[null,true,false],"string":"` + "\u20ac" + `$\u000f\nA'B\"\\\\\"/"}`},
		"escapes": {object{"s": "\x00\x01\x07\b\t\n\v\f\r\x1b\x1f \x7f<>&\u2028\u2029"},
			`{"s":"\u0000\u0001\u0007\b\t\n\u000b\f\r\u001b\u001f ` + "\x7f<>&\u2028\u2029" + `"}`},
		"prefix": {object{"ab": 1, "a": 2, "": 3, "A": 4, "aa": 5}, `{"":3,"A":4,"a":2,"aa":5,"ab":1}`},
		"integers": {object{"a": 0, "b": -1, "c": int64(1<<53 - 1), "d": -(1<<53 - 1)},
			`{"a":0,"b":-1,"c":9007199254740991,"d":-9007199254740991}`},
		"nested": {object{"z": []object{{"b": 1, "a": []string{"y", "x"}}, {}}, "a": []any{[]any{}, object{"k": nil}}},
			`{"a":[[],{"k":null}],"z":[{"a":["y","x"],"b":1},{}]}`},
		// JSON knows no normal form of Unicode: two spellings are two strings.
		"no normalisation": {object{"\u00e9": 1, "e\u0301": 2}, "{\"e\u0301\":2,\"\u00e9\":1}"},
	} {
		got, err := canonical.Marshal(c.in)
		if err != nil || string(got) != c.want {
			t.Errorf("%s\n got %s, %v\nwant %s", name, got, err, c.want)
		}
	}
}

func TestMarshalRefusesWhatHasNoOneForm(t *testing.T) {
	for name, v := range map[string]any{
		"2^53": 1 << 53, "-2^53": -(1 << 53), "largest": int64(math.MaxInt64), "smallest": int64(math.MinInt64),
		"float": 1.5, "whole float": 1.0, "NaN": math.NaN(), "float32": float32(1),
		"uint64": uint64(1), "int32": int32(1), "json.Number": json.Number("1e3"), "raw": json.RawMessage(`{"a":1}`),
		"bytes": []byte("a"), "map": map[string]any{}, "struct": struct{}{}, "pointer": new(string), "func": func() {},
		"bad UTF-8": "\xff", "half a surrogate": "\xed\xa0\x80", "overlong": "\xc0\x80", "cut short": "a\xe2\x82",
	} {
		for where, o := range map[string]object{
			"value": {"a": v}, "array": {"a": []any{"x", v}}, "object": {"a": []object{{"b": object{"c": v}}}},
		} {
			if b, err := canonical.Marshal(o); err == nil {
				t.Errorf("%s as %s gives %s", name, where, b)
			}
		}
	}
	if b, err := canonical.Marshal(object{"a\xff": 1}); err == nil {
		t.Errorf("a key of bad UTF-8 gives %s", b)
	}
	if b, err := canonical.Marshal(object{"a": []string{"ok", "\xff"}}); err == nil {
		t.Errorf("a list with bad UTF-8 gives %s", b)
	}
}

// text draws strings that are rich in what sorts, escapes or encodes oddly.
var text = rapid.StringOf(rapid.OneOf(
	rapid.Rune(), rapid.RuneFrom([]rune("ab\"\\/\b\f\n\r\t\x00\x1f\x7f<>&\u2028\ud7ff\ue000\uffff\U00010000\U0010ffff"))))

func value(t *rapid.T, depth int) any {
	most := 6
	if depth == 0 {
		most = 4 // no more containers
	}
	switch rapid.IntRange(0, most).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return text.Draw(t, "text")
	case 3:
		return rapid.Int64Range(-(1<<53-1), 1<<53-1).Draw(t, "int")
	case 4:
		return rapid.SliceOfN(text, 0, 3).Draw(t, "texts")
	case 5:
		list := make([]any, rapid.IntRange(0, 3).Draw(t, "length"))
		for i := range list {
			list[i] = value(t, depth-1)
		}
		return list
	}
	return tree(t, depth-1)
}

func tree(t *rapid.T, depth int) object {
	o := object{}
	for range rapid.IntRange(0, 4).Draw(t, "members") {
		o[text.Draw(t, "key")] = value(t, depth)
	}
	return o
}

// read gives JSON as the types that Marshal takes.
func read(t interface{ Fatalf(string, ...any) }, b []byte) object {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	var convert func(any) any
	convert = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			o := object{}
			for k, e := range v {
				o[k] = convert(e)
			}
			return o
		case []any:
			list := make([]any, len(v))
			for i, e := range v {
				list[i] = convert(e)
			}
			return list
		case json.Number:
			n, err := v.Int64()
			if err != nil {
				t.Fatalf("%s: %v", b, err)
			}
			return n
		}
		return v
	}
	return convert(m).(object)
}

// loose turns typed lists into []any, as a reader gives them back.
func loose(v any) any {
	switch v := v.(type) {
	case object:
		o := object{}
		for k, e := range v {
			o[k] = loose(e)
		}
		return o
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = loose(e)
		}
		return list
	case []string:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = e
		}
		return list
	}
	return v
}

func TestWhatIsWrittenIsReadBackAndWrittenTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := tree(t, 3)
		b, err := canonical.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(b) || !json.Valid(b) {
			t.Fatalf("not JSON: %q", b)
		}
		back := read(t, b)
		if want := loose(in); !reflect.DeepEqual(back, want) {
			t.Fatalf("%s reads as %v, want %v", b, back, want)
		}
		again, err := canonical.Marshal(back)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s is written again as %s, %v", b, again, err)
		}
	})
}

func TestKeysAreInOrderOfUTF16(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := object{}
		for _, k := range rapid.SliceOfN(text, 2, 8).Draw(t, "keys") {
			o[k] = 1
		}
		b, err := canonical.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(b))
		var last []byte
		for n := 0; ; n++ {
			token, err := d.Token()
			if err != nil {
				break
			}
			key, ok := token.(string)
			if !ok {
				continue
			}
			var units []byte // big-endian, so that comparing bytes compares units
			for _, u := range utf16.Encode([]rune(key)) {
				units = append(units, byte(u>>8), byte(u))
			}
			if last != nil && bytes.Compare(last, units) >= 0 {
				t.Fatalf("%q comes after what sorts above it, in %s", key, b)
			}
			last = append([]byte{}, units...)
		}
	})
}

func FuzzMarshal(f *testing.F) {
	for _, s := range []string{"", "a", "\x00\x1f\"\\", "\xff", "\xed\xa0\x80", "\u2028", "\U0001f600", "e\u0301"} {
		f.Add(s, s+"b", int64(len(s)))
	}
	f.Fuzz(func(t *testing.T, key, s string, n int64) {
		b, err := canonical.Marshal(object{key: s, key + "2": n, "list": []string{s, key}})
		if want := utf8.ValidString(key+s) && utf8.ValidString(key) && n < 1<<53 && n > -1<<53; (err == nil) != want {
			t.Fatalf("%q, %q, %d: %s, %v", key, s, n, b, err)
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "canonical: ") {
				t.Fatal(err)
			}
			return
		}
		again, err := canonical.Marshal(read(t, b))
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s is written again as %s, %v", b, again, err)
		}
	})
}
