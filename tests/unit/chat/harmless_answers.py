"""Answers as models write them about technical documentation, none of which may be changed by the check of citations.

Their one source is https://docs.example.com/guide; citations are [1]. `---` stands between two answers.
"""

ANSWERS = r"""
The limit is 10 MB [1].
---
Take the first element with `items[0]`, or the last with `items[-1]` [1].
---
An array such as [1, 2, 3] is accepted, and [0] means none.
---
Slices work too: `rows[1:3]`, `matrix[0][1]` and `data["key"][2]`.
---
It holds for every \(x\) in \([0, 1]\).
---
The formula is $$a_1 = \frac{b[2]}{c}$$ as the guide says [1].
---
```python
values = [1, 2, 3]
print(values[0], values[1:])
```
---
```bash
curl -X POST http://localhost:8000/chat -H 'Content-Type: application/json' -d '{"message": "hi"}'
```
---
```bash
curl https://docs.example.com/api/v1/items?limit=10 | jq '.items[0]'
```
---
Run `cat file.txt | grep -v "^#" > out.txt 2>&1` first [1].
---
Redirect with `>` or `>>`, and read with `<`.
---
```sh
sort < input.txt > output.txt
diff <(sort a) <(sort b)
```
---
Use `List<int>` or `Map<String, List<User>>` for this [1].
---
```java
public <T extends Comparable<T>> T max(List<? super T> items) { return items.get(0); }
```
---
```rust
fn first<'a, T>(items: &'a [T]) -> Option<&'a T> { items.get(0) }
```
---
```cpp
#include <vector>
std::vector<std::pair<int, int>> edges = {{1, 2}, {3, 4}};
if (a < b && b > c) { cout << edges[0].first << "\n"; }
```
---
```html
<form action="/login" method="post">
  <input type="text" name="user"><br>
  <a href="/help">Help</a>
</form>
```
---
Put `<link rel="stylesheet" href="style.css">` into the `<head>` [1].
---
The tag is `<details>`, with `<summary>` inside.
---
Press <kbd>Ctrl</kbd>+<kbd>C</kbd> to stop it [1].
---
H<sub>2</sub>O and x<sup>2</sup> are written like this.
---
Line one<br>line two [1].
---
| Option | Default | Meaning |
|---|---|---|
| `port` | `8000` | Where it listens |
| `a \| b` | none | Either |
---
| Code | Means |
|:-----|------:|
| `x[0]` | first |
| 404 | not found [1] |
---
1. Install it: `pip install "package[extra]"` [1].
2. Start it with `python -m package`.
3. Open http://localhost:8000/.
---
1. Write the file:
   ```yaml
   services:
     web:
       ports: ["8000:8000"]
   ```
2. Start it [1].
---
- First:

  ```json
  {"a": [1, 2], "b": {"c": null}}
  ```

- Then go on [1].
---
> Quoted from the guide: values below 5 are ignored [1].
---
Open http://127.0.0.1:8000/docs or http://[::1]:8000/docs in a browser.
---
Your site may be https://www.example.com/ or http://shop.example.org/a?b=c#d.
---
See [the guide](https://docs.example.com/guide) for more [1].
---
See [the section](https://docs.example.com/guide#install) for more [1].
---
See <https://docs.example.com/guide>.
---
It is at https://docs.example.com/guide.
---
Set `DATABASE_URL=postgresql://user:pass@localhost/db` [1].
---
The regex is `^\d{1,3}(?:\.\d+)?$` and matches 1.5.
---
Use `git log --oneline | head -n 5` or `git diff HEAD~1 -- src/`.
---
```diff
- old = items[0]
+ new = items[1]
```
---
```sql
SELECT a.id, count(*) FROM a JOIN b ON a.id = b.a_id WHERE a.n <> 3 AND a.n >= 1 GROUP BY 1;
```
---
In Python 3, `//` divides whole numbers: `7 // 2` is `3`.
---
// This comment is ignored, and so is #this one.
---
The path is `/usr/local/bin`, or `C:\Users\me` on Windows [1].
---
Escape it as \* or \_ where you mean the sign itself.
---
It costs $5 to $10, and 50 % less for schools [1].
---
Both are right: (a) and (b), see the note (*) below.
---
**Important:** set `timeout: 30` and *never* 0 [1].
---
~~Deprecated~~ since version 2 [1].
---
```
plain text with [1] and [2] and <tags>
```
---
````markdown
```python
print("nested")
```
````
---
Type three backticks (`` ``` ``) to begin a block.
---
```typescript
const first = <T,>(xs: readonly T[]): T | undefined => xs[0];
type Pair = [number, number];
```
---
```jsx
<Button onClick={() => set(items[0])} disabled={count < 1}>{label}</Button>
```
---
```xml
<?xml version="1.0"?>
<!-- a comment -->
<root attr="1"><child/></root>
```
---
```go
m := map[string][]int{"a": {1, 2}}
for i := range m["a"] { ch <- i }
```
---
```c
int x = a[0] << 2; if (x <= b[1]) { printf("%d\n", *p); }
```
---
```ini
[section]
key = value ; comment
```
---
```toml
[tool.package]
list = ["a", "b"]
```
---
```makefile
all: build
	@echo $(VAR) && ./run < in > out
```
---
```powershell
Get-ChildItem | Where-Object { $_.Length -gt 1MB } | Select-Object -First 5
```
---
```python
from typing import Generic, TypeVar
T = TypeVar("T")
class Box(Generic[T]):
    items: list[T] = []
    def first(self) -> T: return self.items[0]
```
---
Ja, das geht: „Einstellungen“ → „Konto“ [1]. Größe: 5–10 µm, ½ Liter, 20 °C.
---
はい、できます [1]。`items[0]` を使ってください。
---
Note: [ ] is an open task and [x] a closed one.
---
- [ ] write the test
- [x] run it [1]
---
The range is [0, 1), that is 0 ≤ x < 1, or x <= 1 for the other [1].
---
Use a->b in C and a.b elsewhere; a => b is an arrow function, a <- b an assignment in R.
---
Version 1.2.3 (2024-01-31), released under MIT; e.g. for v2.x see §4.1 [1].
"""
