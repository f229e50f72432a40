/** The fields that forms are made of: each has its label, and under it what is wrong with what it holds. */
import { DateField, Select, TextArea, TextField } from "@stripe/ui-extension-sdk/ui";

import { NOTE_LENGTH } from "../typed";

interface FieldProps<T> {
  label: string;
  value: T;
  /** What is wrong with it, as a sentence. */
  error?: string | undefined;
  onChange: (value: T) => void;
}

/** One of several. */
export const Choice = <T extends string>({
  label,
  value,
  options,
  error,
  onChange,
}: FieldProps<T> & { options: readonly { value: T; label: string }[] }) => (
  <Select
    label={label}
    value={value}
    error={error}
    invalid={Boolean(error)}
    onChange={(event) => {
      onChange(event.target.value as T);
    }}
  >
    {options.map((option) => (
      <option key={option.value} value={option.value}>
        {option.label}
      </option>
    ))}
  </Select>
);

/** A short text, or a number as it is typed. */
export const Entry = ({
  label,
  description,
  type = "text",
  value,
  maxLength,
  error,
  onChange,
}: FieldProps<string> & { description?: string; type?: "text" | "number"; maxLength?: number }) => (
  <TextField
    label={label}
    description={description}
    type={type}
    value={value}
    maxLength={maxLength}
    error={error}
    invalid={Boolean(error)}
    onChange={(event) => {
      onChange(event.target.value);
    }}
  />
);

/** A day as YYYY-MM-DD. */
export const Day = ({
  label,
  description,
  value,
  error,
  onChange,
}: FieldProps<string> & { description: string }) => (
  <DateField
    label={label}
    description={description}
    value={value}
    error={error}
    invalid={Boolean(error)}
    onChange={onChange}
  />
);

/** Why somebody does what the form is about: nothing happens without it. */
export const Note = ({
  label = "Why",
  description,
  placeholder,
  value,
  error,
  onChange,
}: Omit<FieldProps<string>, "label"> & { label?: string; description?: string; placeholder?: string }) => (
  <TextArea
    label={label}
    description={description}
    placeholder={placeholder}
    value={value}
    rows={3}
    maxLength={NOTE_LENGTH}
    required
    error={error}
    invalid={Boolean(error)}
    onChange={(event) => {
      onChange(event.target.value);
    }}
  />
);
